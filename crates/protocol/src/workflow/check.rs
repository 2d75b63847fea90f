//! What a guard may contain, found out when it is compiled, so that nobody is told in the middle of a
//! move.

use cel::ParseErrors;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};

/// What a guard can name.
const VARIABLES: [&str; 3] = [ALERT, "by", "reason"];
const ALERT: &str = "alert";
/// The functions that the evaluator has. Macros are no functions any more when this is asked.
const FUNCTIONS: [&str; 12] = [
    "contains",
    "size",
    "max",
    "min",
    "startsWith",
    "endsWith",
    "string",
    "bytes",
    "double",
    "int",
    "uint",
    "matches",
];
/// Macros within macros at most.
const MAX_NESTED: u32 = 2;

/// How many macros are around that mention of the alert which has the most around it.
pub(super) fn expression(expression: &IdedExpr) -> Result<u32, String> {
    walk(&expression.expr, &mut Vec::new(), 0)
}

fn walk<'a>(expression: &'a Expr, bound: &mut Vec<&'a str>, around: u32) -> Result<u32, String> {
    let mut deepest = 0;
    let mut inside = |part: &'a IdedExpr, bound: &mut Vec<&'a str>, around| {
        walk(&part.expr, bound, around).map(|found| deepest = deepest.max(found))
    };
    match expression {
        Expr::Unspecified => return Err("it is not complete".to_owned()),
        Expr::Struct(_) => return Err("it makes a message, of which there is none here".to_owned()),
        Expr::Literal(_) => {}
        Expr::Ident(name) => {
            if bound.contains(&name.as_str()) {
                return Ok(0);
            }
            if name == ALERT {
                return Ok(around);
            }
            if !VARIABLES.contains(&name.as_str()) {
                let known = VARIABLES.join(", ");
                return Err(format!("there is no {name}; there is: {known}"));
            }
        }
        Expr::Call(call) => {
            let name = call.func_name.as_str();
            let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
            if !is_operator && !FUNCTIONS.contains(&name) {
                let known = FUNCTIONS.join(", ");
                return Err(format!("there is no function {name}; there is: {known}"));
            }
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                inside(part, bound, around)?;
            }
        }
        Expr::Select(select) => inside(&select.operand, bound, around)?,
        Expr::List(list) => {
            for part in &list.elements {
                inside(part, bound, around)?;
            }
        }
        Expr::Map(map) => {
            for entry in &map.entries {
                match &entry.expr {
                    EntryExpr::StructField(field) => inside(&field.value, bound, around)?,
                    EntryExpr::MapEntry(entry) => {
                        inside(&entry.key, bound, around)?;
                        inside(&entry.value, bound, around)?;
                    }
                }
            }
        }
        Expr::Comprehension(round) => {
            if around == MAX_NESTED {
                return Err(format!("macros may be nested {MAX_NESTED} deep"));
            }
            if matches!(round.accu_init.expr, Expr::List(_)) {
                return Err("map and filter copy what they have collected once a round: use all, exists or exists_one".to_owned());
            }
            inside(&round.iter_range, bound, around)?;
            inside(&round.accu_init, bound, around)?;
            let outside = bound.len();
            bound.push(&round.iter_var);
            bound.extend(round.iter_var2.as_deref());
            bound.push(&round.accu_var);
            for part in [&round.loop_cond, &round.loop_step, &round.result] {
                inside(part, bound, around + 1)?;
            }
            bound.truncate(outside);
        }
    }
    Ok(deepest)
}

/// The first thing that the parser dislikes and where. Some of its words are about itself; they are
/// said in ours.
pub(super) fn parser_words(errors: &ParseErrors) -> String {
    let Some(first) = errors.errors.first() else {
        return "it is not complete".to_owned();
    };
    let words = first
        .msg
        .strip_prefix("Syntax error: ")
        .unwrap_or(&first.msg);
    if words.contains("Recursion limit") {
        return "it is nested too deeply".to_owned();
    }
    if words.contains("Context") || words.contains("Error(") || words == "UNKNOWN" {
        return "it is not complete".to_owned();
    }
    let (line, column) = first.pos;
    format!("line {line}, column {column}: {words}")
}
