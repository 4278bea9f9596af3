# What a project needs for workspaces in a bucket, images and Dataflow. Clusters, networks and people's rights are left
# to whoever has them. Not applied by us: see infra/README.md.

resource "google_project_service" "used" {
  for_each = toset([
    "artifactregistry.googleapis.com",
    "compute.googleapis.com",
    "dataflow.googleapis.com",
    "storage.googleapis.com",
  ])

  service            = each.value
  disable_on_destroy = false
}

# Bucket -------------------------------------------------------------------------------------------------------------

resource "google_storage_bucket" "histoline" {
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false

  versioning {
    enabled = true
  }

  # The heartbeats of locks replace an object every few seconds, so old versions must not stay for ever.
  lifecycle_rule {
    condition {
      days_since_noncurrent_time = var.old_versions_days
    }
    action {
      type = "Delete"
    }
  }

  # Beam's temporary files (--temp_location=gs://BUCKET/tmp). histoline's own `.tmp` folders are on the machine's disk,
  # never in a bucket: an upload appears whole or not at all.
  lifecycle_rule {
    condition {
      age            = var.temporary_days
      matches_prefix = ["tmp/"]
    }
    action {
      type = "Delete"
    }
  }

  # Parts of uploads that were given up.
  lifecycle_rule {
    condition {
      age = 1
    }
    action {
      type = "AbortIncompleteMultipartUpload"
    }
  }
}

# Images -------------------------------------------------------------------------------------------------------------

resource "google_artifact_registry_repository" "images" {
  repository_id = "histoline"
  location      = var.region
  format        = "DOCKER"
  description   = "Images of infra/images/."

  # A tag that has been run stays what it was.
  docker_config {
    immutable_tags = true
  }

  cleanup_policies {
    id     = "untagged"
    action = "DELETE"
    condition {
      tag_state  = "UNTAGGED"
      older_than = "2592000s"
    }
  }

  depends_on = [google_project_service.used]
}

# Who may do what ----------------------------------------------------------------------------------------------------

locals {
  accounts = {
    pipeline = "Commands and Airflow's steps: ingest, train, predict; starts Dataflow jobs."
    dataflow = "Workers of Dataflow jobs."
    airflow  = "Airflow's servers: read the workspace's reports, change nothing."
  }
}

resource "google_service_account" "of" {
  for_each = local.accounts

  account_id   = "histoline-${each.key}"
  display_name = "histoline ${each.key}"
  description  = each.value
}

# Objects are read, written, replaced and deleted (locks, pruning); the bucket itself stays as it is.
resource "google_storage_bucket_iam_member" "writes" {
  for_each = toset(["pipeline", "dataflow"])

  bucket = google_storage_bucket.histoline.name
  role   = "roles/storage.objectUser"
  member = google_service_account.of[each.value].member
}

resource "google_storage_bucket_iam_member" "reads" {
  bucket = google_storage_bucket.histoline.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.of["airflow"].member
}

# Beam asks for the bucket's location, which is no right on objects.
resource "google_storage_bucket_iam_member" "sees_the_bucket" {
  for_each = toset(["pipeline", "dataflow"])

  bucket = google_storage_bucket.histoline.name
  role   = "roles/storage.legacyBucketReader"
  member = google_service_account.of[each.value].member
}

resource "google_artifact_registry_repository_iam_member" "pulls" {
  for_each = local.accounts

  repository = google_artifact_registry_repository.images.name
  location   = google_artifact_registry_repository.images.location
  role       = "roles/artifactregistry.reader"
  member     = google_service_account.of[each.key].member
}

# Dataflow: the pipeline's account starts and cancels jobs, whose workers run as the other one.
resource "google_project_iam_member" "starts_jobs" {
  project = var.project
  role    = "roles/dataflow.developer"
  member  = google_service_account.of["pipeline"].member
}

resource "google_project_iam_member" "is_a_worker" {
  project = var.project
  role    = "roles/dataflow.worker"
  member  = google_service_account.of["dataflow"].member
}

resource "google_service_account_iam_member" "runs_workers_as" {
  service_account_id = google_service_account.of["dataflow"].name
  role               = "roles/iam.serviceAccountUser"
  member             = google_service_account.of["pipeline"].member
}

# Pods take the rights of these accounts by workload identity; no key file is ever made.
resource "google_service_account_iam_member" "pods" {
  for_each = var.kubernetes_namespace == "" ? toset([]) : toset(["pipeline", "airflow"])

  service_account_id = google_service_account.of[each.value].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${var.project}.svc.id.goog[${var.kubernetes_namespace}/histoline-${each.value}]"
}
