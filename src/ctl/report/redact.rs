//! Takes out what looks like a credential. It rather takes too much.

use serde_json::Value;

/// What stands in place of a secret.
const REDACTED: &str = "REDACTED";
/// A word that ends like this is followed by a secret.
const WORDS: [&str; 13] = [
    "password",
    "passwd",
    "pwd",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "seed",
    "nkey",
    "jwt",
    "credentials",
    "authorization",
];
/// Annotations in which whole objects stand.
const COPIES: [&str; 1] = ["kubectl.kubernetes.io/last-applied-configuration"];
/// Length of an NKey seed.
const SEED: usize = 58;

/// Redacts an object: by the names of its fields, environment variables, then every text in it.
pub(super) fn value(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("managedFields");
            for (name, inner) in fields.iter_mut() {
                match inner {
                    Value::String(text)
                        if is_sensitive(name) || COPIES.contains(&name.as_str()) =>
                    {
                        REDACTED.clone_into(text);
                    }
                    Value::Array(variables) if name == "env" => {
                        for variable in variables.iter_mut() {
                            variables_value(variable);
                        }
                    }
                    _ => {}
                }
                self::value(inner);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(self::value),
        Value::String(text) => *text = self::text(text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn variables_value(variable: &mut Value) {
    if let Some(text) = variable.get_mut("value") {
        *text = Value::from(REDACTED);
    }
}

/// Redacts a text, line by line.
pub(super) fn text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        // NATS writes credentials with markers of their own, some with six dashes.
        let is_key =
            line.contains("PRIVATE KEY") || line.contains("NKEY SEED") || line.contains(" JWT--");
        if is_key && line.contains("-----BEGIN") {
            in_key = !line.contains("-----END");
            out.push_str(REDACTED);
            out.push('\n');
            continue;
        }
        if in_key {
            in_key = !line.contains("-----END");
            continue;
        }
        out.push_str(&values(&tokens(&user_info(line))));
    }
    out
}

/// `scheme://user:password@host` -> `scheme://REDACTED@host`.
fn user_info(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let ends = |c: char| {
            c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | ',' | '>' | ')')
        };
        let end = after.find(ends).unwrap_or(after.len());
        rest = after;
        if let Some(user) = after[..end].rfind('@') {
            out.push_str(REDACTED);
            rest = &after[user..];
        }
    }
    out.push_str(rest);
    out
}

/// Seeds, JWTs, and what follows `Bearer` or `Basic`.
fn tokens(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut follows = false;
    for (word, is_word) in split(line, is_token) {
        if !is_word {
            out.push_str(word);
            follows &= word.chars().all(|c| c == ' ');
            continue;
        }
        if follows || is_seed(word) || is_jwt(word) {
            out.push_str(REDACTED);
            follows = false;
            continue;
        }
        follows = ["bearer", "basic"].contains(&word.to_ascii_lowercase().as_str());
        out.push_str(&inner_secrets(word));
    }
    out
}

/// A seed or JWT may be joined to other text by a `=` or a `/`.
fn inner_secrets(word: &str) -> String {
    let joins = |c: char| matches!(c, '=' | '/' | '+');
    let mut out = String::with_capacity(word.len());
    for (part, is_part) in split(word, |c| !joins(c)) {
        let secret = is_part && (is_seed(part) || is_jwt(part));
        out.push_str(if secret { REDACTED } else { part });
    }
    out
}

/// `password=...`, `"token": "..."`.
fn values(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((name, after)) = next_name(rest) {
        let (before, value) = rest.split_at(after);
        out.push_str(before);
        rest = value;
        if is_sensitive(name) {
            let end = end_of_value(value, name);
            if end > 0 {
                out.push_str(REDACTED);
            }
            rest = &value[end..];
        }
    }
    out.push_str(rest);
    out
}

/// The next name that is followed by `:` or `=`, and where its value begins.
fn next_name(text: &str) -> Option<(&str, usize)> {
    let mut from = 0;
    while let Some(found) = text[from..].find([':', '=']) {
        let at = from + found;
        let before = text[..at].trim_end_matches(['"', '\'', ' ', '\\']);
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-')))
            .map_or(0, |at| {
                at + before[at..].chars().next().map_or(1, char::len_utf8)
            });
        let name = &before[start..];
        from = at + 1;
        if name.is_empty() {
            continue;
        }
        let value = text[from..].trim_start_matches([' ', '"', '\'', '\\']);
        return Some((name, text.len() - value.len()));
    }
    None
}

/// A header's value goes on to the end of the line, others to the next blank or quote.
fn end_of_value(value: &str, name: &str) -> usize {
    let whole = name.to_ascii_lowercase().ends_with("authorization");
    let ends = |c: char| match c {
        '\n' | '\r' | '"' | '\'' => true,
        ' ' | ',' | ';' | '}' | '&' | '\t' => !whole,
        _ => false,
    };
    value.find(ends).unwrap_or(value.len())
}

/// Names such as `NATS_PASSWORD` or `apiKey`, but not `secretName`.
fn is_sensitive(name: &str) -> bool {
    let kept = name.chars().filter(char::is_ascii_alphanumeric);
    let name: String = kept.map(|c| c.to_ascii_lowercase()).collect();
    WORDS.iter().any(|word| name.ends_with(word))
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '=' | '+' | '/' | '~')
}

fn is_seed(word: &str) -> bool {
    let bytes = word.trim_matches(['.', '-', '_', '~']).as_bytes();
    bytes.len() == SEED
        && bytes[0] == b'S'
        && b"ACNOUX".contains(&bytes[1])
        && bytes
            .iter()
            .all(|byte| matches!(byte, b'A'..=b'Z' | b'2'..=b'7'))
}

fn is_jwt(word: &str) -> bool {
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() >= 3 && parts[0].starts_with("ey") && parts[0].len() >= 10 && parts[1].len() >= 10
}

/// `text` in pieces of which each is all of `is` or nothing of it.
fn split(text: &str, is: impl Fn(char) -> bool) -> impl Iterator<Item = (&str, bool)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = is(rest.chars().next()?);
        let end = rest.find(|c| is(c) != first).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        rest = after;
        Some((piece, first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        for kept in [
            "read 7 events of stream EVENTS at 2026-11-21T16:00:00Z\n",
            "Secret edr-nats of namespace prod lacks the key user.creds",
            "engine digest 6f1ed002ab5595859014ebf0951522d9",
            "connected to nats://nats.lookback.svc:4222, cluster 0197f4f1-aaaa",
            "{\"secretName\":\"edr\",\"position\":17}",
            "",
        ] {
            assert_eq!(text(kept), kept);
        }
    }

    #[test]
    fn credentials_in_urls_are_taken_out_and_the_host_stays() {
        assert_eq!(
            text("nats://u:p@a:4222,tls://t0ken@b:4222 x"),
            "nats://REDACTED@a:4222,tls://REDACTED@b:4222 x"
        );
    }

    #[test]
    fn what_stands_behind_a_word_for_a_secret_is_taken_out() {
        for (line, redacted) in [
            ("NATS_PASSWORD=abc next", "NATS_PASSWORD=REDACTED next"),
            (
                "{\"apiKey\": \"abc\", \"a\": 1}",
                "{\"apiKey\": \"REDACTED\", \"a\": 1}",
            ),
            ("password: abc\n", "password: REDACTED\n"),
            (
                "Authorization: Digest abc def\n",
                "Authorization: REDACTED\n",
            ),
            ("got bearer abc.def again", "got bearer REDACTED again"),
        ] {
            assert_eq!(text(line), redacted);
        }
    }

    #[test]
    fn a_private_key_is_taken_out_to_its_end() {
        let pem = "a\n-----BEGIN EC PRIVATE KEY-----\nMHcC\n-----END EC PRIVATE KEY-----\nb\n";
        assert_eq!(text(pem), "a\nREDACTED\nb\n");
    }
}
