variable "project" {
  description = "Google Cloud project that everything is made in."
  type        = string
}

variable "region" {
  description = "Region of bucket, registry and Dataflow: one, so that patches never travel between regions."
  type        = string
  default     = "europe-west4"
}

variable "bucket" {
  description = "Name of the bucket that holds workspace and raw images; unique in all of Google Cloud."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name has 3 to 63 lower-case letters, digits, dashes or underscores."
  }
}

variable "temporary_days" {
  description = "Days after which what Dataflow left in tmp/ is deleted."
  type        = number
  default     = 7
}

variable "old_versions_days" {
  description = "Days for which a replaced or deleted object can be brought back."
  type        = number
  default     = 30
}

variable "kubernetes_namespace" {
  description = "Namespace of Airflow's pods in the cluster with workload identity; empty where there is none."
  type        = string
  default     = ""
}
