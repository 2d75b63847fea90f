//! A page that is being put together. Pure.

use std::collections::HashSet;

use super::{Cursor, Page, is_tombstone};
use crate::nats::api::{Copied, StoredMessage};

/// Bytes of a page after which it takes no more: a dead letter may be as large as a message can be.
const PAGE_BYTES: usize = 16 * 1024 * 1024;

/// Some entries, and how far the stream was looked at for them.
#[derive(Clone, Debug)]
pub(super) struct Gathering {
    limit: usize,
    pub(super) items: Vec<StoredMessage>,
    /// Of their payloads.
    bytes: usize,
    /// The sequence from which on nothing was looked at.
    pub(super) at: u64,
    /// Whether there is something from there on, as far as is known.
    pub(super) more: bool,
}

impl Gathering {
    pub(super) fn new(from: Cursor, limit: usize) -> Self {
        Self {
            limit,
            items: Vec::new(),
            bytes: 0,
            at: from.0,
            more: false,
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.items.len() >= self.limit || self.bytes >= PAGE_BYTES
    }

    /// Entries that it can still take, unless they are large.
    pub(super) fn room(&self) -> usize {
        self.limit.saturating_sub(self.items.len())
    }

    /// Takes what fits and is no tombstone, as long as there is room; how many fitted so.
    pub(super) fn take(&mut self, copied: Copied, fits: impl Fn(&StoredMessage) -> bool) -> usize {
        self.more = copied.pending > 0;
        let before = self.items.len();
        for message in copied.messages {
            let wanted = fits(&message) && !is_tombstone(&message);
            if wanted && self.is_full() {
                self.more = true;
                break;
            }
            self.at = message.sequence + 1;
            if wanted {
                self.bytes += message.payload.len();
                self.items.push(message);
            }
        }
        self.items.len() - before
    }

    /// What was written while the page was put together may be on it in several versions: the last
    /// one stays.
    pub(super) fn done(mut self) -> Page<StoredMessage> {
        let mut later = HashSet::new();
        self.items.reverse();
        self.items
            .retain(|item| later.insert(last_token(&item.subject).to_owned()));
        self.items.reverse();
        Page {
            items: self.items,
            next: self.more.then_some(Cursor(self.at)),
        }
    }
}

fn last_token(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or(subject)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;

    fn message(sequence: u64, headers: &'static str) -> StoredMessage {
        StoredMessage {
            subject: format!("p.new.{sequence}"),
            sequence,
            time: Timestamp::UNIX_EPOCH,
            headers: Bytes::from_static(headers.as_bytes()),
            payload: Bytes::new(),
        }
    }

    fn copied(sequences: &[u64], pending: u64) -> Copied {
        Copied {
            messages: sequences.iter().map(|&it| message(it, "")).collect(),
            pending,
            up_to: None,
        }
    }

    fn sequences(page: &Page<StoredMessage>) -> Vec<u64> {
        page.items.iter().map(|item| item.sequence).collect()
    }

    #[test]
    fn a_page_ends_before_the_first_entry_that_it_has_no_room_for() {
        let mut page = Gathering::new(Cursor(0), 2);
        page.take(copied(&[3, 5, 9], 0), |_| true);
        assert!(page.is_full());
        let page = page.done();
        assert_eq!(sequences(&page), [3, 5]);
        assert_eq!(page.next, Some(Cursor(6)));
    }

    #[test]
    fn a_full_page_with_nothing_behind_it_is_the_last() {
        let mut page = Gathering::new(Cursor(0), 2);
        page.take(copied(&[3, 5], 0), |_| true);
        assert_eq!(page.done().next, None);
    }

    #[test]
    fn of_an_entry_that_moves_meanwhile_a_page_has_the_last_version() {
        let mut page = Gathering::new(Cursor(0), 5);
        page.take(copied(&[3, 5], 1), |_| true);
        let mut moved = message(7, "");
        moved.subject = "p.triage.3".to_owned();
        page.take(
            Copied {
                messages: vec![moved],
                pending: 0,
                up_to: None,
            },
            |_| true,
        );
        let page = page.done();
        assert_eq!(sequences(&page), [5, 7]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_page_goes_on_behind_tombstones() {
        let mut page = Gathering::new(Cursor(2), 2);
        let gone = message(4, "NATS/1.0\r\nLookback-Moved-To: triage\r\n\r\n");
        page.take(
            Copied {
                messages: vec![message(3, ""), gone],
                pending: 7,
                up_to: None,
            },
            |_| true,
        );
        assert!(page.more && !page.is_full());
        let page = page.done();
        assert_eq!(sequences(&page), [3]);
        assert_eq!(page.next, Some(Cursor(5)));
    }

    #[test]
    fn a_page_passes_over_what_does_not_fit_even_when_it_is_full() {
        let mut page = Gathering::new(Cursor(0), 1);
        let fitting = page.take(copied(&[3, 5, 7, 9], 0), |it| it.sequence % 4 == 1);
        assert_eq!(fitting, 1);
        let page = page.done();
        assert_eq!(sequences(&page), [5]);
        assert_eq!(page.next, Some(Cursor(8)));
    }
}
