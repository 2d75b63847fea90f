//! Which dead letters: flags that must all fit.

use anyhow::Result;
use jiff::Timestamp;
use lookback_protocol::deadletter::Reason;

use crate::ctl::given::{named, when};
use crate::nats::deadletters::{DeadLetterStore, LetterHead, Selector};
use crate::nats::entries::{Cursor, MAX_PAGE};

/// Flags that pick.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Picks {
    /// Only those parked for one of these reasons, such as NotJson,TooLarge
    #[arg(long, value_name = "REASON", value_delimiter = ',', value_parser = named::<Reason>)]
    reason: Vec<Reason>,
    /// Only those whose error names this rule, by id or title
    #[arg(long, value_name = "ID|TITLE")]
    rule: Option<String>,
    /// Only those whose event was stored since then: a time as 2026-01-05T08:00:00Z, or how long ago, as 90m or 7d
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<Timestamp>,
    /// Only those whose event was stored before then
    #[arg(long, value_name = "TIME", value_parser = when)]
    until: Option<Timestamp>,
}

impl Picks {
    /// Whether no flag is given, so that all are picked.
    pub(super) fn is_all(&self) -> bool {
        self.selector() == Selector::default()
    }

    pub(super) fn selector(&self) -> Selector {
        let Self {
            reason,
            rule,
            since,
            until,
        } = self.clone();
        Selector {
            reasons: reason,
            rule,
            since,
            until,
        }
    }

    /// Every dead letter in `state` that is picked, the oldest first, at most `limit`; and whether that
    /// is all.
    pub(super) async fn read(
        &self,
        store: &DeadLetterStore,
        state: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<LetterHead>, bool)> {
        let selector = self.selector();
        let mut out: Vec<LetterHead> = Vec::new();
        let mut from = Cursor::default();
        loop {
            let page = store.list(state, &selector, from, MAX_PAGE).await?;
            out.extend(page.items);
            if out.len() > limit {
                out.truncate(limit);
                return Ok((out, false));
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok((out, true)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        picks: Picks,
    }

    fn picks(args: &[&str]) -> Result<Picks, clap::Error> {
        let args = ["test"].iter().chain(args);
        Line::try_parse_from(args).map(|line| line.picks)
    }

    #[test]
    fn flags_become_a_selector() {
        let picks = picks(&[
            "--reason",
            "NotJson,TooDeep",
            "--until",
            "2026-11-21T16:00:00Z",
        ]);
        let picks = picks.unwrap();
        let expected = Selector {
            reasons: vec![Reason::NotJson, Reason::TooDeep],
            until: Some("2026-11-21T16:00:00Z".parse().unwrap()),
            ..Selector::default()
        };
        assert_eq!(picks.selector(), expected);
        assert!(!picks.is_all());
    }

    #[test]
    fn an_unknown_reason_is_refused_with_those_there_are() {
        let error = picks(&["--reason", "Bad"]).err().unwrap().to_string();
        assert!(error.contains("NotJson"), "{error}");
    }
}
