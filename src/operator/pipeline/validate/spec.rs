//! The spec alone: what the shape of the definition does not rule out, but cannot work.

use crate::api::pipeline::{NatsSpec, SecretKeyRef};

/// The Secret keys a spec names, which [`super::Dereferenced::secrets`] must answer in this order.
#[must_use]
pub fn needed_secrets(nats: &NatsSpec) -> Vec<SecretKeyRef> {
    let of_user = nats.user_password_secret_ref.iter().flat_map(|secret| {
        ["username", "password"].map(|key| SecretKeyRef {
            name: secret.name.clone(),
            key: key.to_owned(),
        })
    });
    nats.credentials_secret_ref
        .iter()
        .cloned()
        .chain(of_user)
        .chain(nats.tls.ca_secret_ref.clone())
        .collect()
}
