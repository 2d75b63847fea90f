//! Processing pipelines: how rules are translated to the field layout of the events.

use rsigma_eval::{Pipeline, builtin_pipeline_names, parse_pipeline, resolve_builtin_pipeline};

use super::{Problems, RuleFile};

/// Whether `file` is named in `processing`, by its full name or by its key alone.
pub(super) fn is_named(file: &RuleFile, processing: &[String]) -> bool {
    processing.iter().any(|name| is_called(file, name))
}

/// The pipelines named in `processing`, by their priority, then in the given order.
///
/// `None` when one of them is unusable: rules that are translated wrongly match the wrong events, so
/// none may run.
pub(super) fn load(
    files: &[RuleFile],
    processing: &[String],
    problems: &mut Problems,
) -> Option<Vec<Pipeline>> {
    let mut pipelines = Vec::new();
    let mut usable = true;
    for name in processing {
        match load_one(files, name) {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(message) => {
                usable = false;
                problems.file(name, format!("{message}; without it no rule is loaded"));
            }
        }
    }
    pipelines.sort_by_key(|pipeline| pipeline.priority);
    usable.then_some(pipelines)
}

fn load_one(files: &[RuleFile], name: &str) -> Result<Pipeline, String> {
    if let Some(builtin) = resolve_builtin_pipeline(name) {
        return builtin.map_err(|error| error.to_string());
    }
    let mut named = files.iter().filter(|file| is_called(file, name));
    let Some(file) = named.next() else {
        return Err(format!(
            "unknown processing pipeline: neither built in ({}) nor a file of the rules",
            builtin_pipeline_names().join(", ")
        ));
    };
    if let Some(other) = named.next() {
        return Err(format!(
            "the processing pipeline is ambiguous: {} and {} both have this name",
            file.name, other.name
        ));
    }
    let text = std::str::from_utf8(&file.bytes)
        .map_err(|_| "the processing pipeline is not UTF-8".to_owned())?;
    let pipeline = parse_pipeline(text).map_err(|error| error.to_string())?;
    if pipeline.is_dynamic() {
        return Err("the processing pipeline refers to external sources, \
             which are not supported"
            .to_owned());
    }
    Ok(pipeline)
}

fn is_called(file: &RuleFile, name: &str) -> bool {
    file.name == name
        || file
            .name
            .rsplit_once('/')
            .is_some_and(|(_, key)| key == name)
}
