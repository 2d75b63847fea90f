//! The Secrets of `spec.nats`. Their content goes into the connection and nowhere else; what the
//! other steps see is whether it is there.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use super::Error;
use crate::api::pipeline::{NatsSpec, SecretKeyRef};
use crate::nats::connect::{Auth, Material, Target, Timeouts};
use crate::operator::pipeline::facts::{SecretContent, SecretFact};
use crate::operator::pipeline::validate::needed_secrets;

/// The keys of a Secret by its name; `None` for one that does not exist.
#[derive(Default)]
pub(super) struct Secrets(BTreeMap<String, Option<BTreeMap<String, ByteString>>>);

/// Reads every Secret that `nats` names, each once.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    nats: &NatsSpec,
) -> Result<Secrets, Error> {
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    let names: BTreeSet<String> = needed_secrets(nats)
        .into_iter()
        .map(|key| key.name)
        .collect();
    let mut secrets = BTreeMap::new();
    for name in names {
        let secret = api
            .get_opt(&name)
            .await
            .map_err(|source| Error::read("Secret", &name, source))?;
        secrets.insert(name, secret.map(|secret| secret.data.unwrap_or_default()));
    }
    Ok(Secrets(secrets))
}

impl Secrets {
    /// What is known of each key, without its content.
    pub(super) fn facts(&self, nats: &NatsSpec) -> Vec<SecretFact> {
        let fact = |key: SecretKeyRef| SecretFact {
            content: match self.0.get(&key.name) {
                None | Some(None) => SecretContent::NoSecret,
                Some(Some(data)) if data.contains_key(&key.key) => SecretContent::Present,
                Some(Some(_)) => SecretContent::NoKey,
            },
            name: key.name,
            key: key.key,
        };
        needed_secrets(nats).into_iter().map(fact).collect()
    }

    /// How to connect; `None` while a key is missing.
    pub(super) fn target(&self, nats: &NatsSpec, timeouts: Timeouts) -> Option<Target> {
        let creds = nats.credentials_secret_ref.as_ref();
        let user = nats.user_password_secret_ref.as_ref();
        let auth = match (creds, user) {
            (Some(key), _) => Some(Auth::Credentials(self.material(&key.name, &key.key)?)),
            (None, Some(secret)) => Some(Auth::UserPassword {
                username: self.material(&secret.name, "username")?,
                password: self.material(&secret.name, "password")?,
            }),
            (None, None) => None,
        };
        let ca = match &nats.tls.ca_secret_ref {
            Some(key) => Some(self.material(&key.name, &key.key)?),
            None => None,
        };
        Some(Target {
            urls: nats.urls.clone(),
            auth,
            ca,
            tls_required: nats.tls.required,
            timeouts,
        })
    }

    fn material(&self, name: &str, key: &str) -> Option<Material> {
        let data = self.0.get(name)?.as_ref()?;
        Some(Material::Bytes(data.get(key)?.0.clone()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec() -> NatsSpec {
        serde_json::from_value(json!({
            "urls": ["nats://nats:4222"],
            "userPasswordSecretRef": {"name": "nats"},
            "tls": {"caSecretRef": {"name": "ca", "key": "ca.crt"}},
        }))
        .unwrap()
    }

    fn secrets(content: &[(&str, &[&str])]) -> Secrets {
        let mut secrets = BTreeMap::from([("nats".to_owned(), None), ("ca".to_owned(), None)]);
        for (name, keys) in content {
            let data = keys
                .iter()
                .map(|key| ((*key).to_owned(), ByteString(b"x".to_vec())));
            secrets.insert((*name).to_owned(), Some(data.collect()));
        }
        Secrets(secrets)
    }

    #[test]
    fn a_missing_key_is_told_from_a_missing_secret() {
        let facts = secrets(&[("nats", &["username"])]).facts(&spec());
        let content: Vec<SecretContent> = facts.into_iter().map(|fact| fact.content).collect();
        let expected = [
            SecretContent::Present,
            SecretContent::NoKey,
            SecretContent::NoSecret,
        ];
        assert_eq!(content, expected);
    }

    #[test]
    fn there_is_no_target_while_a_key_is_missing() {
        assert_eq!(
            secrets(&[("nats", &["username", "password"])]).target(&spec(), Timeouts::default()),
            None
        );
    }

    #[test]
    fn the_target_holds_what_the_secrets_hold() {
        let complete = secrets(&[("nats", &["username", "password"]), ("ca", &["ca.crt"])]);
        let target = complete.target(&spec(), Timeouts::default()).unwrap();
        assert!(matches!(target.auth, Some(Auth::UserPassword { .. })));
        assert_eq!(target.ca, Some(Material::Bytes(b"x".to_vec())));
    }
}
