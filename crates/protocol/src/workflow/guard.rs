//! Guards: CEL over the alert and who moves it, compiled once.
//!
//! A guard is written by whoever owns the pipeline and evaluated by whoever moves an alert, so it must
//! neither end nor hold up that program. CEL has no loops but macros over lists and maps: what they may
//! cost is bounded by how deeply they are nested, and by the largest list of the alert. The parser
//! descends once for each bracket, so brackets are counted before it is asked; and as parser and
//! evaluator are another's code, a panic of theirs is an answer too.

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
/// How many times the macros of one evaluation may go round, at a guess from above.
const MAX_ROUNDS: usize = 1_000_000;

/// A compiled guard.
#[derive(Clone)]
pub struct Guard {
    text: Arc<str>,
    program: Arc<Program>,
    /// How many macros are nested in one another.
    nested: u32,
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
        let nested = check::expression(program.expression()).map_err(syntax)?;
        Ok(Self {
            text: text.into(),
            program: Arc::new(program),
            nested,
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
        self.check_rounds(&alert)
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

    /// A macro goes round once for each element and, where it collects, copies what it has each time;
    /// so one more than are nested is what must be paid for.
    fn check_rounds(&self, alert: &Json) -> Result<(), String> {
        if self.nested == 0 {
            return Ok(());
        }
        let longest = longest(alert) + self.text.len() / 2;
        let rounds = longest.checked_pow(self.nested + 1);
        if rounds.is_some_and(|rounds| rounds <= MAX_ROUNDS) {
            return Ok(());
        }
        Err(format!(
            "the alert holds a list or map of {longest} or so, too many for its macros"
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

/// Elements of the longest list, map or text within.
fn longest(json: &Json) -> usize {
    match json {
        Json::Array(items) => items.iter().map(longest).fold(items.len(), usize::max),
        Json::Object(fields) => fields.values().map(longest).fold(fields.len(), usize::max),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => 0,
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
