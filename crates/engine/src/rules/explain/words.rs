//! The conditions of a detection in words.

use rsigma_parser::{ConditionExpr, Detection, DetectionItem, Modifier, SigmaValue};

/// Without the outer parentheses.
pub(super) fn condition(condition: &ConditionExpr) -> String {
    let joined = |all: &[ConditionExpr], by: &str| {
        let parts: Vec<_> = all.iter().map(ToString::to_string).collect();
        parts.join(by)
    };
    match condition {
        ConditionExpr::And(all) => joined(all, " and "),
        ConditionExpr::Or(all) => joined(all, " or "),
        other => other.to_string(),
    }
}

/// Every field that `detection` looks at.
pub(super) fn fields(detection: &Detection, out: &mut Vec<String>) {
    match detection {
        Detection::AllOf(items) => out.extend(items.iter().filter_map(|it| it.field.name.clone())),
        Detection::AnyOf(all) | Detection::And(all) => {
            for one in all {
                fields(one, out);
            }
        }
        Detection::Keywords(_) => {}
        Detection::ArrayMatch { field, .. } => out.push(field.clone()),
        Detection::Conditional { named, .. } => {
            for one in named.values() {
                fields(one, out);
            }
        }
    }
}

/// One sentence a line; all of the lines must hold.
pub(super) fn sentences(detection: &Detection) -> Vec<String> {
    let mut out = Vec::new();
    say(detection, 0, &mut out);
    out
}

fn say(detection: &Detection, depth: usize, out: &mut Vec<String>) {
    let indent = "  ".repeat(depth);
    match detection {
        Detection::AllOf(items) => {
            out.extend(items.iter().map(|it| format!("{indent}{}", item(it))));
        }
        Detection::And(all) => {
            for one in all {
                say(one, depth, out);
            }
        }
        Detection::AnyOf(all) => {
            out.push(format!("{indent}any of {}:", all.len()));
            for (at, one) in all.iter().enumerate() {
                if at > 0 {
                    out.push(format!("{indent}or"));
                }
                say(one, depth + 1, out);
            }
        }
        Detection::Keywords(values) => {
            out.push(format!(
                "{indent}any field contains {}",
                list(values, "any")
            ));
        }
        Detection::ArrayMatch {
            field,
            quantifier,
            body,
        } => {
            out.push(format!("{indent}{quantifier} of the members of {field}:"));
            say(body, depth + 1, out);
        }
        Detection::Conditional {
            named,
            condition: of,
        } => {
            out.push(format!("{indent}{} where", condition(of)));
            let mut named: Vec<_> = named.iter().collect();
            named.sort_unstable_by_key(|(name, _)| *name);
            for (name, one) in named {
                out.push(format!("{indent}{name}:"));
                say(one, depth + 1, out);
            }
        }
    }
}

fn item(item: &DetectionItem) -> String {
    let field = item.field.name.as_deref().unwrap_or("the value");
    let has = |modifier| item.field.has_modifier(modifier);
    if has(Modifier::Exists) {
        let absent = item.values.iter().all(|it| *it == SigmaValue::Bool(false));
        return format!(
            "{field} {}",
            if absent { "is not there" } else { "is there" }
        );
    }
    let mut verb = "is";
    let mut notes = Vec::new();
    for modifier in &item.field.modifiers {
        match word(*modifier) {
            Word::Verb(word) => verb = word,
            Word::Note(note) => notes.push(note),
            Word::Nothing => {}
        }
    }
    let quantity = if has(Modifier::All) { "all" } else { "any" };
    let mut out = format!("{field} {verb} {}", list(&item.values, quantity));
    if !notes.is_empty() {
        out = format!("{out} ({})", notes.join(", "));
    }
    out
}

fn list(values: &[SigmaValue], quantity: &str) -> String {
    let said: Vec<_> = values.iter().map(value).collect();
    match said.as_slice() {
        [one] => one.clone(),
        _ => format!("{quantity} of {}", said.join(", ")),
    }
}

fn value(value: &SigmaValue) -> String {
    match value {
        SigmaValue::String(text) => format!("'{text}'"),
        other => other.to_string(),
    }
}

enum Word {
    Verb(&'static str),
    Note(&'static str),
    Nothing,
}

fn word(modifier: Modifier) -> Word {
    match modifier {
        Modifier::Contains => Word::Verb("contains"),
        Modifier::StartsWith => Word::Verb("begins with"),
        Modifier::EndsWith => Word::Verb("ends with"),
        Modifier::Re => Word::Verb("matches the regular expression"),
        Modifier::Cidr => Word::Verb("is in the network"),
        Modifier::FieldRef => Word::Verb("is the value of the field"),
        Modifier::Gt => Word::Verb("is more than"),
        Modifier::Gte => Word::Verb("is at least"),
        Modifier::Lt => Word::Verb("is less than"),
        Modifier::Lte => Word::Verb("is at most"),
        Modifier::Neq => Word::Verb("is not"),
        Modifier::Minute => Word::Verb("has the minute"),
        Modifier::Hour => Word::Verb("has the hour"),
        Modifier::Day => Word::Verb("has the day"),
        Modifier::Week => Word::Verb("has the week"),
        Modifier::Month => Word::Verb("has the month"),
        Modifier::Year => Word::Verb("has the year"),
        Modifier::Base64 => Word::Note("in base64"),
        Modifier::Base64Offset => Word::Note("in base64 at any offset"),
        Modifier::Wide => Word::Note("in UTF-16 LE"),
        Modifier::Utf16be => Word::Note("in UTF-16 BE"),
        Modifier::Utf16 => Word::Note("in UTF-16 with its mark"),
        Modifier::WindAsh => Word::Note("with any kind of dash"),
        Modifier::Cased => Word::Note("upper and lower case differ"),
        Modifier::Expand => Word::Note("after placeholders"),
        Modifier::IgnoreCase => Word::Note("whatever the case"),
        Modifier::Multiline => Word::Note("line by line"),
        Modifier::DotAll => Word::Note("across lines"),
        Modifier::All | Modifier::Exists => Word::Nothing,
    }
}
