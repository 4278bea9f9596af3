output "workspace" {
  description = "For --workspace or HISTOLINE_WORKSPACE."
  value       = "gs://${google_storage_bucket.histoline.name}/workspace"
}

output "temp_location" {
  description = "For --temp_location of Dataflow jobs."
  value       = "gs://${google_storage_bucket.histoline.name}/tmp"
}

output "registry" {
  description = "What the images are tagged with."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.images.repository_id}"
}

output "dataflow_service_account" {
  description = "For --service_account_email of Dataflow jobs."
  value       = google_service_account.of["dataflow"].email
}
