//! How many alerts a person expects of which rule, and where the run differs. A rule that is not named
//! is expected to give none: an alert that nobody expects is what such a test is to find.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use lookback_protocol::alert::RuleRef;
use serde::Serialize;

use super::explain::is_called;

/// One rule of which there are more or fewer alerts than expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    /// The rule's id.
    pub(super) id: String,
    /// Its title.
    pub(super) title: String,
    /// Alerts that were expected.
    pub(super) expected: u64,
    /// Alerts that it gave.
    pub(super) found: u64,
}

/// What the file at `path` expects: a YAML or JSON map from ids or titles to numbers of alerts.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, u64>> {
    let cannot = || format!("cannot read the expected counts of {}", path.display());
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    serde_saphyr::from_str(&text).with_context(cannot)
}

/// Where `found`, the alerts of each of `rules`, is not what is expected.
pub(super) fn compare(
    expected: &BTreeMap<String, u64>,
    rules: &[RuleRef],
    found: &[u64],
) -> Result<Vec<Difference>> {
    let mut wanted = vec![0; rules.len()];
    for (name, count) in expected {
        let mut called = (0..rules.len()).filter(|at| is_called(&rules[*at], name));
        match (called.next(), called.next()) {
            (Some(at), None) => wanted[at] = *count,
            (None, _) => bail!(
                "alerts of {name:?} are expected, but no rule of the set has this id or title"
            ),
            (Some(_), Some(_)) => {
                bail!(
                    "alerts of {name:?} are expected, but several rules have this title: use an id"
                );
            }
        }
    }
    let all = rules.iter().zip(wanted).zip(found);
    Ok(all
        .filter(|((_, expected), found)| expected != *found)
        .map(|((rule, expected), found)| Difference {
            id: rule.id.clone(),
            title: rule.title.clone(),
            expected,
            found: *found,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use lookback_protocol::alert::RuleKind;

    use super::*;

    fn rules() -> Vec<RuleRef> {
        let rule = |(id, title): (&str, &str)| RuleRef {
            id: id.to_owned(),
            title: title.to_owned(),
            level: None,
            tags: Vec::new(),
            kind: RuleKind::Detection,
        };
        [("1", "One"), ("2", "Two"), ("3", "Same"), ("4", "same")]
            .map(rule)
            .into()
    }

    fn differ(expected: &[(&str, u64)], found: [u64; 4]) -> Result<Vec<(String, u64, u64)>> {
        let expected = expected
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        let differences = compare(&expected, &rules(), &found)?;
        Ok(differences
            .into_iter()
            .map(|it| (it.id, it.expected, it.found))
            .collect())
    }

    #[test]
    fn rules_are_named_by_id_or_title() {
        assert_eq!(differ(&[("1", 2), ("two", 1)], [2, 1, 0, 0]).unwrap(), []);
    }

    #[test]
    fn a_rule_that_is_not_named_is_expected_to_give_nothing() {
        let differences = differ(&[("1", 2)], [1, 5, 0, 0]).unwrap();
        assert_eq!(
            differences,
            [("1".to_owned(), 2, 1), ("2".to_owned(), 0, 5)]
        );
    }

    #[test]
    fn a_name_that_is_no_rule_or_several_is_refused() {
        assert!(
            differ(&[("5", 0)], [0; 4])
                .unwrap_err()
                .to_string()
                .contains("no rule")
        );
        assert!(
            differ(&[("Same", 0)], [0; 4])
                .unwrap_err()
                .to_string()
                .contains("several")
        );
    }
}
