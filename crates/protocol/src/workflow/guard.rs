//! Guards: CEL over the alert and who moves it, compiled once.
//!
//! A guard is written by whoever owns the pipeline and evaluated by whoever moves an alert, so it must
//! neither end nor hold up that program. CEL has no loops but macros over lists and maps. The evaluator
//! copies whatever an expression names, so a macro that names the alert copies it once a round: how
//! often that may be is bounded. The parser descends once for each bracket, so brackets are counted
//! before it is asked; and as parser and evaluator are another's code, a panic of theirs is an answer
//! too.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Program, Value};
use serde_json::Value as Json;

use super::{MAX_GUARD, check};
use crate::alert::AlertRecord;

/// Brackets within brackets at most; the parser's stack grows with them.
const MAX_BRACKETS: usize = 24;
/// Values that the macros of one evaluation may copy: a second's work or so.
const MAX_COPIES: usize = 2_000_000;
/// Bytes of text that count as one value.
const TEXT_VALUE: usize = 32;

/// A compiled guard.
#[derive(Clone)]
pub struct Guard {
    text: Arc<str>,
    program: Arc<Program>,
    /// How many macros are around that mention of the alert which has the most around it.
    rounds: u32,
}

/// Why a guard is none, or gave no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GuardError {
    /// It is longer than [`MAX_GUARD`].
    #[error("a guard may have {MAX_GUARD} characters, and this one has {0}")]
    TooLong(usize),
    /// It is no CEL, or names what is not there.
    #[error("guard {guard:?} is no CEL expression that can be used: {problem}")]
    Syntax {
        /// The guard.
        guard: String,
        /// What the parser says.
        problem: String,
    },
    /// It could not be evaluated, for example because the alert lacks what it names.
    #[error("guard {guard:?} cannot be evaluated: {problem}")]
    Evaluation {
        /// The guard.
        guard: String,
        /// What the evaluator says.
        problem: String,
    },
    /// It is neither true nor false.
    #[error("guard {guard:?} gave no boolean")]
    NotBoolean {
        /// The guard.
        guard: String,
    },
}

impl Guard {
    /// Compiles it.
    ///
    /// # Errors
    /// [`GuardError::TooLong`], [`GuardError::Syntax`].
    pub fn new(text: &str) -> Result<Self, GuardError> {
        let length = text.chars().count();
        if length > MAX_GUARD {
            return Err(GuardError::TooLong(length));
        }
        let syntax = |problem: String| GuardError::Syntax {
            guard: text.to_owned(),
            problem,
        };
        if brackets(text) > MAX_BRACKETS {
            return Err(syntax(format!(
                "brackets may be nested {MAX_BRACKETS} deep"
            )));
        }
        let program = catch_unwind(|| Program::compile(text))
            .map_err(|_| syntax("the parser cannot make sense of it".to_owned()))?
            .map_err(|errors| syntax(check::parser_words(&errors)))?;
        let rounds = check::expression(program.expression()).map_err(syntax)?;
        Ok(Self {
            text: text.into(),
            program: Arc::new(program),
            rounds,
        })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it lets `by` take the step with `alert` as it is now.
    ///
    /// # Errors
    /// [`GuardError`]; the step is not taken then.
    pub fn allows(&self, alert: &AlertRecord, by: &str, reason: &str) -> Result<bool, GuardError> {
        let evaluation = |problem: &str| GuardError::Evaluation {
            guard: self.text.to_string(),
            problem: problem.to_owned(),
        };
        let alert = serde_json::to_value(alert)
            .map_err(|_| evaluation("the alert cannot be written as JSON"))?;
        self.check_copies(&alert)
            .map_err(|text| evaluation(&text))?;
        let mut context = Context::default();
        context.add_variable_from_value("alert", value(alert));
        context.add_variable_from_value("by", by.to_owned());
        context.add_variable_from_value("reason", reason.to_owned());
        let answer = catch_unwind(AssertUnwindSafe(|| self.program.execute(&context)))
            .map_err(|_| evaluation("the evaluator gave up"))?;
        match answer {
            Ok(Value::Bool(allowed)) => Ok(allowed),
            Ok(_) => Err(GuardError::NotBoolean {
                guard: self.text.to_string(),
            }),
            Err(error) => Err(evaluation(&evaluator_words(&error))),
        }
    }

    fn check_copies(&self, alert: &Json) -> Result<(), String> {
        if self.rounds == 0 {
            return Ok(());
        }
        let Extent { longest, values } = extent(alert);
        // The guard may write a list as well.
        let longest = longest.max(self.text.len() / 2);
        let copies = longest
            .checked_pow(self.rounds)
            .and_then(|rounds| rounds.checked_mul(values));
        if copies.is_some_and(|copies| copies <= MAX_COPIES) {
            return Ok(());
        }
        Err(format!(
            "the alert is too large, with {values} values, for macros that name it: let them name their own variable only"
        ))
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.text).finish()
    }
}

/// How deeply brackets are nested, those in strings too.
fn brackets(text: &str) -> usize {
    let mut open = 0_usize;
    let mut deepest = 0;
    for character in text.chars() {
        match character {
            '(' | '[' | '{' => open += 1,
            ')' | ']' | '}' => open = open.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(open);
    }
    deepest
}

/// How large a JSON value is.
#[derive(Clone, Copy)]
struct Extent {
    /// Elements of its longest list or map.
    longest: usize,
    /// Values in it, itself among them.
    values: usize,
}

fn extent(json: &Json) -> Extent {
    let of = |count: usize, parts: &mut dyn Iterator<Item = &Json>| {
        let own = Extent {
            longest: count,
            values: 1,
        };
        parts.map(extent).fold(own, |sum, part| Extent {
            longest: sum.longest.max(part.longest),
            values: sum.values + part.values,
        })
    };
    match json {
        Json::Array(items) => of(items.len(), &mut items.iter()),
        Json::Object(fields) => of(fields.len(), &mut fields.values()),
        Json::Null | Json::Bool(_) | Json::Number(_) => of(0, &mut std::iter::empty()),
        Json::String(text) => Extent {
            longest: 0,
            values: 1 + text.len() / TEXT_VALUE,
        },
    }
}

/// The crate's own conversion makes every positive number unsigned, which cannot be added to a literal.
fn value(json: Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(truth) => Value::Bool(truth),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => Value::Int(signed),
            (None, Some(unsigned)) => Value::UInt(unsigned),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::String(Arc::new(text)),
        Json::Array(items) => Value::List(Arc::new(items.into_iter().map(value).collect())),
        Json::Object(fields) => {
            let fields: HashMap<Key, Value> = fields
                .into_iter()
                .map(|(name, field)| (Key::from(name), value(field)))
                .collect();
            Value::Map(Map {
                map: Arc::new(fields),
            })
        }
    }
}

/// The evaluator's own words print whole values, and so what the alert holds.
fn evaluator_words(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("there is no {key}"),
        ExecutionError::UndeclaredReference(name) => format!("there is no {name}"),
        ExecutionError::FunctionError { function, .. } => format!("{function} fails"),
        ExecutionError::InvalidArgumentCount { expected, actual } => {
            format!("a function takes {expected} arguments, not {actual}")
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "it divides by zero".to_owned()
        }
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "a list has no such element".to_owned(),
        _ => "a value is of another type than it takes".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::tests::record;
    use super::*;

    #[track_caller]
    fn allows(text: &str) -> Result<bool, GuardError> {
        let guard = Guard::new(text).unwrap();
        guard.allows(&record(), "user/alice", "looked at it")
    }

    #[track_caller]
    fn problem(text: &str) -> String {
        match Guard::new(text).and_then(|guard| guard.allows(&record(), "user/alice", "")) {
            Err(GuardError::Syntax { problem, .. } | GuardError::Evaluation { problem, .. }) => {
                problem
            }
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_guard_sees_the_alert_as_it_is_stored() {
        for text in [
            "alert.rule.level == 'high'",
            "alert.state == 'new' && by == 'user/alice' && reason != ''",
            "alert.data.count > 4 && alert.data.count + 1 == 6 && alert.data.ratio < 1",
            "'dc1' in alert.data.hosts",
            "has(alert.metadata.owner) && !has(alert.metadata.ticket)",
            "alert.history.exists(step, step.to == 'new')",
            "alert.rule.tags.all(tag, tag.startsWith('attack.'))",
            "alert.rule.title.matches('^Many .*s$')",
            "size(alert.events) == 0",
        ] {
            assert_eq!(allows(text), Ok(true), "{text}");
        }
        assert_eq!(allows("alert.data.count > 5"), Ok(false));
    }

    #[test]
    fn what_is_no_cel_is_told_in_the_words_of_the_parser() {
        assert_eq!(
            problem("by =="),
            "line 1, column 6: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}"
        );
        assert_eq!(problem("true ? false"), "it is not complete");
        assert_eq!(
            problem("has(alert)"),
            "line 1, column 5: invalid argument to has() macro"
        );
    }

    #[test]
    fn names_that_are_not_there_are_told_when_it_is_compiled() {
        assert_eq!(
            problem("user == 'a'"),
            "there is no user; there is: alert, by, reason"
        );
        assert!(problem("now() > 3").starts_with("there is no function now; there is: "));
        assert_eq!(
            problem("alert.events.all(event, other.sequence > 1)"),
            "there is no other; there is: alert, by, reason"
        );
        assert_eq!(
            problem("alert.events.all(event, true) && event.sequence > 1"),
            "there is no event; there is: alert, by, reason"
        );
        assert_eq!(
            problem("Alert{} == alert"),
            "it makes a message, of which there is none here"
        );
    }

    #[test]
    fn what_cannot_be_evaluated_is_told_without_what_the_alert_holds() {
        for (text, expected) in [
            ("alert.metadata.ticket == 'x'", "there is no ticket"),
            ("alert.data.hosts[7] == 'x'", "a list has no such element"),
            ("alert.data.count / 0 == 1", "it divides by zero"),
            (
                "alert.data.count + 9223372036854775807 == 1",
                "a number is too large",
            ),
            (
                "alert.data.hosts - alert.data.count == 1",
                "a value is of another type than it takes",
            ),
            ("alert.rule.title.matches('(')", "matches fails"),
            ("size() == 1", "a value is of another type than it takes"),
        ] {
            assert_eq!(problem(text), expected, "{text}");
        }
        assert_eq!(
            allows("alert.data.count"),
            Err(GuardError::NotBoolean {
                guard: "alert.data.count".to_owned()
            })
        );
    }

    #[test]
    fn a_guard_of_more_than_1024_characters_is_refused_unread() {
        let fits = format!("by != '{}'", "ä".repeat(MAX_GUARD - 8));
        assert_eq!(allows(&fits), Ok(true));
        assert_eq!(
            Guard::new(&format!("{fits} ")).err(),
            Some(GuardError::TooLong(MAX_GUARD + 1))
        );
    }

    #[test]
    fn brackets_that_would_exhaust_the_stack_are_refused() {
        let nested = |deep: usize| format!("{}true{}", "(".repeat(deep), ")".repeat(deep));
        assert_eq!(allows(&nested(MAX_BRACKETS)), Ok(true));
        assert_eq!(
            problem(&nested(MAX_BRACKETS + 1)),
            "brackets may be nested 24 deep"
        );
    }

    #[test]
    fn macros_that_would_go_round_too_often_are_refused() {
        let text = "alert.events.all(a, alert.events.all(b, alert.events.all(c, true)))";
        assert_eq!(problem(text), "macros may be nested 2 deep");
        let large = AlertRecord {
            data: json!(vec![0; 5_000]),
            ..record()
        };
        for (guard, expected) in [
            ("alert.data.all(a, a == 0)", true),
            ("alert.data.all(a, a in alert.data)", false),
            ("alert.rule.tags.all(a, a in alert.metadata)", false),
            ("[1].all(a, [2].all(b, alert.state == 'new'))", false),
        ] {
            let guard = Guard::new(guard).unwrap();
            assert!(
                guard.allows(&record(), "user/alice", "").is_ok(),
                "{guard:?}"
            );
            let answer = guard.allows(&large, "user/alice", "");
            assert_eq!(answer.is_ok(), expected, "{guard:?}: {answer:?}");
        }
    }

    #[test]
    fn macros_that_collect_are_refused() {
        for text in [
            "alert.events.map(e, e.time) == []",
            "alert.events.filter(e, true) == []",
        ] {
            assert_eq!(
                problem(text),
                "map and filter copy what they have collected once a round: use all, exists or exists_one"
            );
        }
    }

    /// Every thread of the operator has a stack of 2 MiB, and some of it is in use.
    #[test]
    fn no_text_needs_half_of_a_stack() {
        let pieces = [
            ("(", "true", ")"),
            ("[", "", "]"),
            ("{1:", "1", "}"),
            ("!", "true", ""),
            ("-", "1", ""),
            ("1+", "1", ""),
            ("by&&", "by", ""),
            ("by||", "by", ""),
            ("by==", "by", ""),
            ("", "alert", ".a"),
            ("", "alert", "[0]"),
            ("", "by", ".size()"),
            ("by?by:", "by", ""),
            ("by?", "by", ":by"),
            ("by?", "by", ""),
            ("has(", "by.a", ")"),
            ("alert.all(x,", "x", ")"),
            ("([{-!", "", ""),
        ];
        let evaluated = std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(move || {
                for (before, middle, after) in pieces {
                    let deep = (MAX_GUARD - middle.len()) / (before.len() + after.len());
                    for deep in [deep, MAX_BRACKETS] {
                        let text = [before.repeat(deep), middle.to_owned(), after.repeat(deep)];
                        let guard = Guard::new(&text.concat());
                        let answer = guard.and_then(|it| it.allows(&record(), "a", "b"));
                        drop(answer);
                    }
                }
                pieces.len()
            })
            .unwrap()
            .join()
            .unwrap();
        assert_eq!(evaluated, pieces.len());
    }

    proptest! {
        #[test]
        fn any_text_is_a_guard_or_told_why_not(text in ".{0,80}") {
            if let Ok(guard) = Guard::new(&text) {
                let answer = guard.allows(&record(), "user/alice", "");
                let compiled = !matches!(answer, Err(GuardError::Syntax { .. } | GuardError::TooLong(_)));
                prop_assert!(compiled, "{answer:?}");
            }
        }

        #[test]
        fn any_tokens_of_cel_are_a_guard_or_told_why_not(
            tokens in proptest::collection::vec(
                r#"alert|by|reason|\.[a-d]|size|has|all|map|[\[\](){}?:,.!+*/%<>=&|-]|==|!=|<=|&&|\|\||in|[0-9]{1,20}|1e9|'a'|"\\x"|true|null| x |\?|b'a'|1u|matches"#,
                0..40,
            )
        ) {
            let text = tokens.concat();
            match Guard::new(&text) {
                Ok(guard) => drop(guard.allows(&record(), "user/alice", "")),
                Err(error) => {
                    let told = error.to_string();
                    prop_assert!(!told.contains("Context") && !told.contains("Error("), "{told}");
                }
            }
        }
    }

    #[test]
    fn a_guard_can_be_shared_by_threads() {
        fn is_shared<T: Send + Sync>() {}
        is_shared::<Guard>();
    }
}
