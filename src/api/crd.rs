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
