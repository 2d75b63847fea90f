//! Which dead letters there are. Nothing is changed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::deadletter::{
    BY, ERROR, NOTE, PUBLISHED, SEQUENCE, STATES, STREAM, SUBJECT,
};
use lookback_protocol::names::PipelineKey;

use super::super::letter::Head;
use super::{DeadLetterStore, Histogram, LetterHead, Selector};
use crate::nats::api::StoredMessage;
use crate::nats::entries::{Cursor, MAX_PAGE, Page, ReadError};

/// Letters looked at together at least, when few of them are picked.
const MIN_LOOKED_AT: usize = 100;
const HOUR: i64 = 3600;

impl DeadLetterStore {
    /// Dead letters in `state`, or in any, that `selector` picks, the oldest version first: what is
    /// parked, in the order of its parking. `limit` is between 1 and [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(
        &self,
        state: Option<&str>,
        selector: &Selector,
        from: Cursor,
        limit: usize,
    ) -> Result<Page<LetterHead>, ReadError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut items = Vec::new();
        let mut at = from;
        loop {
            let lacking = limit - items.len();
            let looked_at = lacking.max(MIN_LOOKED_AT);
            let page = self.entries.page(state, at, looked_at).await?;
            for message in &page.items {
                let head = head(self.key(), message)?;
                if !selector.picks(&head) {
                    continue;
                }
                if items.len() == limit {
                    let next = Some(Cursor(head.sequence));
                    return Ok(Page { items, next });
                }
                items.push(head);
            }
            match page.next {
                Some(next) if items.len() < limit => at = next,
                next => return Ok(Page { items, next }),
            }
        }
    }

    /// How many dead letters there are in each state.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        self.entries.counts(&STATES).await
    }
}

fn head(key: &PipelineKey, message: &StoredMessage) -> Result<LetterHead, ReadError> {
    let head = Head::of(key, message)?;
    Ok(LetterHead {
        id: head.id.to_owned(),
        state: head.state.to_owned(),
        sequence: message.sequence,
        stored: message.time,
        reason: head.reason()?,
        error: head.text(ERROR)?,
        stream: head.text(STREAM)?,
        event: head.parsed(SEQUENCE)?,
        published: head.parsed(PUBLISHED)?,
        subject: head.text(SUBJECT)?,
        redrives: head.redrives()?,
        by: head.optional(BY),
        note: head.optional(NOTE),
    })
}

impl Selector {
    /// Whether this one is among those that are meant.
    #[must_use]
    pub fn picks(&self, letter: &LetterHead) -> bool {
        let Self {
            reasons,
            rule,
            since,
            until,
        } = self;
        let error = || letter.error.to_lowercase();
        (reasons.is_empty() || reasons.contains(&letter.reason))
            && rule
                .as_ref()
                .is_none_or(|rule| error().contains(&rule.to_lowercase()))
            && since.is_none_or(|since| letter.published >= since)
            && until.is_none_or(|until| letter.published < until)
    }
}

impl Histogram {
    /// Counts one more.
    pub fn add(&mut self, letter: &LetterHead) {
        *self.reasons.entry(letter.reason).or_default() += 1;
        *self.hours.entry(hour(letter.published)).or_default() += 1;
    }
}

/// The beginning of the hour, of UTC, that `time` lies in.
fn hour(time: Timestamp) -> Timestamp {
    let second = time.as_second() - i64::from(time.subsec_nanosecond() < 0);
    let begin = second - second.rem_euclid(HOUR);
    Timestamp::from_second(begin).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use lookback_protocol::deadletter::Reason;

    use super::*;

    fn letter(error: &str, published: &str) -> LetterHead {
        LetterHead {
            id: "0-7-e590fdd3".to_owned(),
            state: "parked".to_owned(),
            sequence: 1,
            stored: Timestamp::UNIX_EPOCH,
            reason: Reason::EnginePanic,
            error: error.to_owned(),
            stream: "EVENTS".to_owned(),
            event: 7,
            published: published.parse().unwrap(),
            subject: "ev.a".to_owned(),
            redrives: 0,
            by: None,
            note: None,
        }
    }

    #[test]
    fn a_selector_without_anything_picks_all() {
        let letter = letter("boom", "2026-01-01T10:59:59Z");
        assert!(Selector::default().picks(&letter));
    }

    #[test]
    fn a_selector_picks_what_fits_all_of_it() {
        let letter = letter("rule Brute Force panicked", "2026-01-01T10:30:00Z");
        let fits = Selector {
            reasons: vec![Reason::NotJson, Reason::EnginePanic],
            rule: Some("brute force".to_owned()),
            since: Some(letter.published),
            until: Some("2026-01-01T10:30:00.000000001Z".parse().unwrap()),
        };
        assert!(fits.picks(&letter));
        let others = [
            Selector {
                reasons: vec![Reason::NotJson],
                ..fits.clone()
            },
            Selector {
                rule: Some("login".to_owned()),
                ..fits.clone()
            },
            Selector {
                since: fits.until,
                ..fits.clone()
            },
            Selector {
                until: fits.since,
                ..fits.clone()
            },
        ];
        for other in others {
            assert!(!other.picks(&letter), "{other:?}");
        }
    }

    #[test]
    fn a_histogram_counts_by_reason_and_by_hour_of_the_event() {
        let mut histogram = Histogram::default();
        for published in [
            "2026-01-01T10:00:00Z",
            "2026-01-01T10:59:59.999999999Z",
            "2026-01-01T11:00:00Z",
            "1969-12-31T23:59:59.5Z",
        ] {
            histogram.add(&letter("boom", published));
        }
        assert_eq!(
            histogram.reasons,
            BTreeMap::from([(Reason::EnginePanic, 4)])
        );
        let hours = [
            ("1969-12-31T23:00:00Z", 1),
            ("2026-01-01T10:00:00Z", 2),
            ("2026-01-01T11:00:00Z", 1),
        ]
        .map(|(hour, count)| (hour.parse().unwrap(), count));
        assert_eq!(histogram.hours, BTreeMap::from(hours));
    }
}
