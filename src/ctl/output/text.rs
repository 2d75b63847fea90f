//! Text for people: how wide it is, how old something is, and nothing in it that a terminal would obey.

use jiff::Timestamp;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Columns that `text` takes on a terminal; wide characters take two, accents none.
#[must_use]
pub fn width(text: &str) -> usize {
    text.width()
}

/// `text` with an escape in place of each character that a terminal or a reader's eye would obey.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() || turns_text(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Marks of direction, and characters that are not seen at all.
fn turns_text(character: char) -> bool {
    matches!(character,
        '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}'
        | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `text` in at most so many columns; what is cut off leaves a `…`.
#[must_use]
pub fn shorten(text: &str, columns: usize) -> String {
    let text = plain(text);
    if width(&text) <= columns {
        return text;
    }
    let mut left = columns.saturating_sub(1);
    let mut short: String = text
        .chars()
        .take_while(|character| {
            let takes = character.width().unwrap_or(0);
            let fits = takes <= left;
            left = left.saturating_sub(takes);
            fits
        })
        .collect();
    short.push('…');
    short
}

/// A time as people say it: `3m`, `2d`. Two of the smaller unit are not yet one of the larger: `90s`,
/// `47h`. What lies ahead is `0s`.
#[must_use]
pub fn age(since: Timestamp, now: Timestamp) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let seconds = now.duration_since(since).as_secs().max(0);
    let (unit, letter) = match seconds {
        ..120 => (1, 's'),
        120..7_200 => (MINUTE, 'm'),
        7_200..172_800 => (HOUR, 'h'),
        172_800..63_072_000 => (DAY, 'd'),
        63_072_000.. => (YEAR, 'y'),
    };
    format!("{}{letter}", seconds / unit)
}

/// A time to the second, for people; programs get all of it.
#[must_use]
pub fn moment(time: Timestamp) -> String {
    format!("{time:.0}")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn ages_have_one_unit() {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * 365 * 10);
        let ago = |seconds| age(now - SignedDuration::from_secs(seconds), now);
        let expected = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7_199, "119m"),
            (7_200, "2h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
        ];
        for (seconds, text) in expected {
            assert_eq!(ago(seconds), text, "{seconds}");
        }
    }

    #[test]
    fn people_see_times_to_the_second() {
        let time: Timestamp = "2026-01-05T08:00:00.987654321Z".parse().unwrap();
        assert_eq!(moment(time), "2026-01-05T08:00:00Z");
    }

    #[test]
    fn wide_characters_take_two_columns_and_accents_none() {
        assert_eq!(width("日本"), 4);
        assert_eq!(width("e\u{301}"), 1);
    }

    #[test]
    fn what_is_too_wide_is_cut_between_characters() {
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
        assert_eq!(shorten("日本語", 6), "日本語");
        assert_eq!(shorten("日本語!", 6), "日本…");
        assert!(width(&shorten("日本語の規則", 6)) <= 6);
    }

    #[test]
    fn escapes_and_turned_text_are_shown_not_obeyed() {
        assert_eq!(plain("a\nb\u{202e}c\u{9b}"), "a\\nb\\u{202e}c\\u{9b}");
        assert_eq!(plain("naïve 日本"), "naïve 日本");
    }
}
