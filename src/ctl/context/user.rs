//! Who the person is.

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::{Api, Client};

use super::said;

/// `user/<name>`: the API server's answer, which no flag can change.
pub(super) async fn user(client: Client) -> Result<String> {
    let review = Api::<SelfSubjectReview>::all(client)
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .map_err(said)
        .context("cannot ask the API server who you are")?;
    let name = review
        .status
        .and_then(|status| status.user_info?.username)
        .context("the API server does not say who you are")?;
    Ok(format!("user/{name}"))
}
