//! The ConfigMaps of `spec.rules`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::Error;
use crate::api::pipeline::ConfigMapRef;
use crate::operator::pipeline::facts::ConfigMapFact;

/// Reads them in the order of the spec.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    names: &[ConfigMapRef],
) -> Result<Vec<ConfigMapFact>, Error> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let mut facts = Vec::with_capacity(names.len());
    for ConfigMapRef { name } in names {
        let config_map = api
            .get_opt(name)
            .await
            .map_err(|source| Error::read("ConfigMap", name, source))?;
        facts.push(ConfigMapFact {
            name: name.clone(),
            files: config_map.map(files),
        });
    }
    Ok(facts)
}

/// Text and binary keys alike; the API server lets no key stand in both.
pub(super) fn files(config_map: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = config_map.data.unwrap_or_default();
    let binary = config_map.binary_data.unwrap_or_default();
    let text = text
        .into_iter()
        .map(|(key, value)| (key, value.into_bytes()));
    text.chain(binary.into_iter().map(|(key, value)| (key, value.0)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn text_and_archives_of_one_config_map_are_one_set_of_files() {
        let config_map = json!({"data": {"a.yml": "title: a"}, "binaryData": {"b.tar.gz": "H4sI"}});
        let files = files(serde_json::from_value(config_map).unwrap());
        let expected = BTreeMap::from([
            ("a.yml".to_owned(), b"title: a".to_vec()),
            ("b.tar.gz".to_owned(), vec![0x1f, 0x8b, 0x08]),
        ]);
        assert_eq!(files, expected);
    }
}
