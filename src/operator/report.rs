//! The one place that tells people what happened: the log, Events and the result counter. An Event's
//! note holds the whole chain of causes, cut at what the API server takes.

use std::error::Error as StdError;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter as Source};
use tracing::warn;

use crate::runtime::telemetry::chain;

/// The API server refuses a longer note.
const MAX_NOTE_BYTES: usize = 1024;
const CONTROLLER: &str = "lookback.dev/operator";

/// Publishes Events. Clones share the cache that folds repeated Events into one.
#[derive(Clone)]
pub struct Reporter {
    recorder: Recorder,
    instance: String,
}

/// What to say about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody should look.
    pub severity: Severity,
    /// CamelCase, from a closed set.
    pub reason: String,
    /// One sentence.
    pub note: String,
}

/// Whether somebody should look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Normal,
    /// Somebody should look.
    Warning,
}

impl Notice {
    /// A normal notice.
    pub fn normal(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            severity: Severity::Normal,
            reason: reason.into(),
            note: note.into(),
        }
    }

    /// A warning.
    pub fn warning(reason: impl Into<String>, note: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            reason: reason.into(),
            note: note.into(),
        }
    }
}

impl Reporter {
    /// `instance` is this replica's name.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        let source = Source {
            controller: CONTROLLER.to_owned(),
            instance: Some(instance.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, source),
            instance: instance.to_owned(),
        }
    }

    /// This replica's name.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// A reconcile failed: once in the log, once as an Event, with every cause.
    pub async fn failed(
        &self,
        category: &'static str,
        error: &(dyn StdError + Sync),
        object: &ObjectReference,
    ) {
        let causes = chain(error);
        let (namespace, name) = (&object.namespace, &object.name);
        warn!(
            ?namespace,
            ?name,
            category,
            error = causes,
            "Reconcile failed"
        );
        self.publish(&Notice::warning(category, causes), object)
            .await;
    }

    /// Publishes an Event. That it cannot be published is logged and nothing else: an Event is a
    /// courtesy, the condition is the record.
    pub async fn publish(&self, notice: &Notice, object: &ObjectReference) {
        let event = Event {
            type_: match notice.severity {
                Severity::Normal => EventType::Normal,
                Severity::Warning => EventType::Warning,
            },
            reason: notice.reason.clone(),
            note: Some(cut(&notice.note, MAX_NOTE_BYTES).to_owned()),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, object).await {
            warn!(reason = %notice.reason, error = %chain(&error), "Cannot publish an event");
        }
    }
}

/// At most `max` bytes of `text`, cut between characters.
fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let text = "ä".repeat(600);
        assert_eq!(cut(&text, MAX_NOTE_BYTES).len(), 1024);
        assert_eq!(cut(&text, 1023).len(), 1022);
    }
}
