//! The CustomResourceDefinition as `lookback crds` prints it, with what the derive has no attribute for.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::pipeline::DetectionPipeline;

/// The definition as YAML, ready for `kubectl apply`.
#[must_use]
pub fn crds() -> String {
    let mut crd = serde_json::to_value(DetectionPipeline::crd())
        .expect("a definition made of strings, numbers and lists is JSON");
    let schema = &mut crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    // Until the operator has seen an object, kstatus must not take it for current.
    schema["properties"]["status"]["default"] = json!({"observedGeneration": -1});
    drop_nulls(&mut crd);
    name_known_formats(&mut crd);
    serde_saphyr::to_string(&crd).expect("JSON is YAML")
}

/// A status that is absent is not the same as one that is null.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The API server warns about formats it does not know, and knows no unsigned ones; `minimum` says
/// that a number is not negative.
fn name_known_formats(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").is_some_and(|format| format == "uint64") {
                map.insert("format".to_owned(), json!("int64"));
            }
            map.values_mut().for_each(name_known_formats);
        }
        Value::Array(list) => list.iter_mut().for_each(name_known_formats),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition() -> Value {
        serde_saphyr::from_str(&crds()).unwrap()
    }

    fn schema() -> Value {
        definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
    }

    /// Calls `visit` with the path of every schema under `schema`.
    fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), property, visit);
        }
        for (suffix, key) in [("[]", "items"), ("{}", "additionalProperties")] {
            if schema[key].is_object() {
                walk(&format!("{path}{suffix}"), &schema[key], visit);
            }
        }
    }

    #[test]
    fn every_string_list_and_map_has_a_bound() {
        let mut unbounded = Vec::new();
        walk("", &schema(), &mut |path, schema| {
            let bounded = |key: &str| !schema[key].is_null();
            let has_bound = match schema["type"].as_str() {
                Some("string") => bounded("maxLength") || bounded("enum"),
                Some("array") => bounded("maxItems"),
                Some("object") => !bounded("additionalProperties") || bounded("maxProperties"),
                _ => true,
            };
            if !has_bound && !matches!(path, ".apiVersion" | ".kind") {
                unbounded.push(path.to_owned());
            }
        });
        assert_eq!(unbounded, Vec::<String>::new());
    }

    #[test]
    fn no_field_keeps_what_the_schema_does_not_name() {
        walk("", &schema(), &mut |path, schema| {
            assert!(
                schema["x-kubernetes-preserve-unknown-fields"].is_null(),
                "{path}"
            );
        });
    }

    #[test]
    fn every_field_of_the_spec_is_described() {
        let spec = &schema()["properties"]["spec"];
        walk("spec", spec, &mut |path, schema| {
            let of_pod = ["affinity", "resources", "tolerations"];
            let inside = of_pod
                .iter()
                .any(|field| path.starts_with(&format!("spec.worker.{field}")));
            let item = path.ends_with(']') || path.ends_with('}');
            let described = schema["description"]
                .as_str()
                .is_some_and(|text| !text.is_empty());
            assert!(described || inside || item, "{path} has no description");
        });
    }

    #[test]
    fn a_fresh_object_is_not_current_for_kstatus() {
        let default = &schema()["properties"]["status"]["default"];
        assert_eq!(*default, json!({"observedGeneration": -1}));
    }

    #[test]
    fn a_replay_has_no_default_that_could_change_what_it_asks_for() {
        let replay = &schema()["properties"]["spec"]["properties"]["replay"];
        assert_eq!(replay["properties"]["fromSequence"]["minimum"], 1.0);
        assert_eq!(replay["properties"]["latest"]["enum"], json!([true]));
        walk("replay", replay, &mut |path, schema| {
            assert!(schema["default"].is_null(), "{path}");
        });
    }

    /// A default of the schema would be written into every object, and no profile could speak.
    #[test]
    fn s39_what_a_profile_speaks_for_has_no_default() {
        let spec = &schema()["properties"]["spec"]["properties"];
        let profile = &spec["profile"];
        assert_eq!(profile["default"], json!("Production"));
        for (part, knobs) in [
            ("alerts", &["replicas", "maxAge", "maxBytes"][..]),
            ("deadLetters", &["maxAge", "maxBytes"]),
            ("commit", &["interval", "events"]),
            ("nats", &["connectTimeout", "requestTimeout"]),
        ] {
            for knob in knobs {
                let field = &spec[part]["properties"][knob];
                assert!(field.is_object(), "{part}.{knob} is not there");
                assert!(field["default"].is_null(), "{part}.{knob}");
                assert!(spec[part]["default"][knob].is_null(), "{part}.{knob}");
            }
        }
    }

    #[test]
    fn every_number_has_a_format_that_the_api_server_knows() {
        walk("", &schema(), &mut |path, schema| {
            let format = schema["format"].as_str();
            let known = matches!(format, None | Some("int32" | "int64" | "date-time"));
            assert!(known, "{path} has format {format:?}");
        });
    }

    #[test]
    fn fields_of_later_versions_are_not_there() {
        let mut paths = Vec::new();
        walk("", &schema(), &mut |path, _| paths.push(path.to_owned()));
        for later in [
            ".spec.nats.nkeySecretRef",
            ".spec.nats.tokenSecretRef",
            ".spec.nats.tls.clientCertSecretRef",
        ] {
            assert!(!paths.iter().any(|path| path == later), "{later}");
        }
    }
}
