//! Schemas of the pod fields a spec may hold. The types are Kubernetes' own; their generated schemas
//! would make the definition ten times as long and leave every list and string without a bound.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Value, json};

const NAME: usize = 63;
const LABEL_KEY: usize = 317;
const FEW: usize = 16;

/// `limits` and `requests` of the worker's container.
pub fn resources(_: &mut SchemaGenerator) -> Schema {
    let amounts = json!({
        "type": "object",
        "maxProperties": FEW,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": r"^[0-9]+(\.[0-9]{1,3})?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$",
            "maxLength": 20,
        },
    });
    schema(object(json!({"limits": amounts, "requests": amounts})))
}

/// What the worker's pod tolerates.
pub fn tolerations(_: &mut SchemaGenerator) -> Schema {
    schema(list(object(json!({
        "key": text(LABEL_KEY),
        "operator": {"type": "string", "enum": ["Equal", "Exists"]},
        "value": text(NAME),
        "effect": {"type": "string", "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
        "tolerationSeconds": {"type": "integer", "format": "int64"},
    }))))
}

/// Where the worker's pod may be placed.
pub fn affinity(_: &mut SchemaGenerator) -> Schema {
    let near = json!({
        "requiredDuringSchedulingIgnoredDuringExecution": list(pod_term()),
        "preferredDuringSchedulingIgnoredDuringExecution":
            list(weighted("podAffinityTerm", pod_term())),
    });
    schema(object(json!({
        "nodeAffinity": object(json!({
            "requiredDuringSchedulingIgnoredDuringExecution": required(
                json!({"nodeSelectorTerms": list(node_term())}),
                &["nodeSelectorTerms"],
            ),
            "preferredDuringSchedulingIgnoredDuringExecution":
                list(weighted("preference", node_term())),
        })),
        "podAffinity": object(near.clone()),
        "podAntiAffinity": object(near),
    })))
}

fn node_term() -> Value {
    object(json!({
        "matchExpressions": list(requirement()),
        "matchFields": list(requirement()),
    }))
}

fn pod_term() -> Value {
    required(
        json!({
            "topologyKey": text(LABEL_KEY),
            "labelSelector": label_selector(),
            "namespaceSelector": label_selector(),
            "namespaces": list(text(NAME)),
        }),
        &["topologyKey"],
    )
}

fn label_selector() -> Value {
    object(json!({
        "matchExpressions": list(requirement()),
        "matchLabels": {
            "type": "object",
            "maxProperties": FEW,
            "additionalProperties": text(NAME),
        },
    }))
}

fn requirement() -> Value {
    required(
        json!({
            "key": text(LABEL_KEY),
            "operator": {
                "type": "string",
                "enum": ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"],
            },
            "values": list(text(NAME)),
        }),
        &["key", "operator"],
    )
}

fn weighted(name: &str, term: Value) -> Value {
    let weight = json!({"type": "integer", "format": "int32", "minimum": 1, "maximum": 100});
    let mut properties = serde_json::Map::new();
    properties.insert("weight".to_owned(), weight);
    properties.insert(name.to_owned(), term);
    required(Value::Object(properties), &["weight", name])
}

fn object(properties: Value) -> Value {
    required(properties, &[])
}

fn required(properties: Value, names: &[&str]) -> Value {
    let mut object = json!({"type": "object"});
    object["properties"] = properties;
    if !names.is_empty() {
        object["required"] = json!(names);
    }
    object
}

fn list(items: Value) -> Value {
    let mut list = json!({"type": "array", "maxItems": FEW});
    list["items"] = items;
    list
}

fn text(max_length: usize) -> Value {
    json!({"type": "string", "maxLength": max_length})
}

fn schema(value: Value) -> Schema {
    Schema::try_from(value).expect("every function above makes an object")
}
