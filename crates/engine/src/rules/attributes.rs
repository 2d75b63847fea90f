//! `rsigma.*` attributes. In the evaluator's own engine some of them, set on one rule, change every
//! rule; here an attribute acts on its rule or the rule is refused.

use std::collections::HashMap;

/// Attributes that document a rule and decide nothing.
const DOCUMENTATION: [&str; 2] = ["rsigma.ads", "rsigma.exemplars"];

/// The first attribute, in order of names, that is neither in `supported` nor documentation.
pub(super) fn unsupported<V>(
    attributes: &HashMap<String, V>,
    supported: &[&str],
) -> Result<(), String> {
    let refused = attributes
        .keys()
        .filter(|key| key.starts_with("rsigma."))
        .filter(|key| !supported.contains(&key.as_str()) && !is_documentation(key))
        .min();
    match refused.map(String::as_str) {
        None => Ok(()),
        Some("rsigma.timestamp_field") => {
            Err("rsigma.timestamp_field, which is not supported on a rule; \
             set the pipeline's timestampFields instead"
                .to_owned())
        }
        Some(key) => Err(format!("{key}, which is not supported")),
    }
}

fn is_documentation(key: &str) -> bool {
    DOCUMENTATION.iter().any(|known| {
        key == *known
            || key
                .strip_prefix(known)
                .is_some_and(|rest| rest.starts_with('.'))
    })
}
