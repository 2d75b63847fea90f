//! Completions as kubectl asks a plugin for them: `kubectl_complete-lookback` gets the words that were
//! typed, the last one unfinished, and prints what that one may become, one a line with its meaning
//! after a tab, and at the end a line that says whether a file may stand there as well. The scripts
//! for shells under the plugin's own name ask in the same way.
//!
//! Completions never fail: what cannot be found out is not offered.

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::{Arg, ArgAction, Command, ValueEnum, ValueHint};
use kube::ResourceExt;

use super::context::{Context, Target};

/// cobra's "offer files if nothing else".
const FILES: &str = ":0";
/// cobra's "offer no files".
const NO_FILES: &str = ":4";
/// The option that takes the name of a pipeline.
const PIPELINE: &str = "pipeline";

/// A shell that has a script.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    pub(super) fn script(self) -> &'static str {
        match self {
            Self::Bash => include_str!("complete/kubectl-lookback.bash"),
            Self::Zsh => include_str!("complete/kubectl-lookback.zsh"),
            Self::Fish => include_str!("complete/kubectl-lookback.fish"),
        }
    }
}

/// What may stand in the place of the last word.
#[derive(Debug, Default, PartialEq, Eq)]
struct Offer {
    /// With what each means.
    words: Vec<(String, String)>,
    /// Whether it is the name of a pipeline.
    pipelines: bool,
    /// Whether it is a path.
    files: bool,
    /// The values of options that were typed, by the option's name.
    given: BTreeMap<String, String>,
}

/// Prints what `words` can be continued with.
///
/// # Errors
/// Standard output is closed.
pub(super) async fn run(root: Command, words: &[String]) -> anyhow::Result<()> {
    let mut root = root;
    root.build();
    let last = words.last().map_or("", String::as_str);
    let mut offer = offer(&root, words);
    if offer.pipelines {
        let names = pipelines(&offer.given).await.unwrap_or_default();
        offer
            .words
            .extend(names.into_iter().map(|name| (name, String::new())));
    }
    let mut out = io::stdout().lock();
    for (word, meaning) in offer
        .words
        .iter()
        .filter(|(word, _)| word.starts_with(last))
    {
        match meaning.is_empty() {
            true => writeln!(out, "{word}")?,
            false => writeln!(out, "{word}\t{meaning}")?,
        }
    }
    let files = if offer.files { FILES } else { NO_FILES };
    writeln!(out, "{files}")?;
    Ok(out.flush()?)
}

async fn pipelines(given: &BTreeMap<String, String>) -> anyhow::Result<Vec<String>> {
    let context = Context::new(Target::at(given));
    let found = context.pipelines().await?;
    Ok(found.iter().map(ResourceExt::name_any).collect())
}

fn offer(root: &Command, words: &[String]) -> Offer {
    let mut offer = Offer::default();
    let Some((last, typed)) = words.split_last() else {
        return offer;
    };
    let mut command = root;
    let mut positionals = 0;
    let mut waiting: Option<&Arg> = None;
    for word in typed {
        if let Some(option) = waiting.take() {
            offer
                .given
                .insert(option.get_id().to_string(), word.clone());
        } else if word.starts_with('-') {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            let takes = |arg: &&Arg| is_called(arg, name) && arg.get_action().takes_values();
            match (command.get_arguments().find(takes), value) {
                (Some(arg), Some(value)) => {
                    offer
                        .given
                        .insert(arg.get_id().to_string(), value.to_owned());
                }
                (found, _) => waiting = found,
            }
        } else if let Some(found) = command.find_subcommand(word) {
            command = found;
            positionals = 0;
        } else {
            positionals += 1;
        }
    }
    if let Some(option) = waiting {
        offer.values(option);
    } else if last.starts_with('-') {
        offer.options(command);
    } else {
        offer.next(command, positionals);
    }
    offer
}

impl Offer {
    fn values(&mut self, arg: &Arg) {
        self.pipelines = arg.get_id() == PIPELINE;
        self.files = arg.get_value_hint() == ValueHint::AnyPath;
        for value in arg.get_possible_values() {
            self.words
                .push((value.get_name().to_owned(), text(value.get_help())));
        }
    }

    fn options(&mut self, command: &Command) {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if let Some(long) = arg.get_long() {
                self.words.push((format!("--{long}"), text(arg.get_help())));
            }
        }
    }

    fn next(&mut self, command: &Command, positionals: usize) {
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            self.words
                .push((verb.get_name().to_owned(), text(verb.get_about())));
        }
        let mut places = command.get_positionals();
        let last = command.get_positionals().last();
        // The last place may be for several.
        let several = last.filter(|arg| matches!(arg.get_action(), ArgAction::Append));
        if let Some(arg) = places.nth(positionals).or(several) {
            self.values(arg);
        }
    }
}

fn is_called(arg: &Arg, name: &str) -> bool {
    let long = name.strip_prefix("--");
    let short = name.strip_prefix('-').and_then(|name| {
        let mut characters = name.chars();
        characters.next().filter(|_| characters.next().is_none())
    });
    (long.is_some() && arg.get_long() == long) || (short.is_some() && arg.get_short() == short)
}

fn text(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn offered(words: &[&str]) -> Offer {
        let mut root = super::super::Cli::command();
        root.build();
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        offer(&root, &words)
    }

    fn names(offer: &Offer) -> Vec<&str> {
        offer.words.iter().map(|(word, _)| word.as_str()).collect()
    }

    #[test]
    fn verbs_are_offered_with_their_meaning_and_hidden_ones_are_not() {
        let offer = offered(&[""]);
        assert!(names(&offer).contains(&"alerts"), "{offer:?}");
        assert!(!names(&offer).contains(&"__complete"), "{offer:?}");
        let verbs = offered(&["-n", "prod", "alerts", ""]);
        assert!(names(&verbs).contains(&"annotate"), "{verbs:?}");
        assert_eq!(verbs.given["namespace"], "prod");
    }

    #[test]
    fn options_and_their_values_are_offered() {
        assert!(names(&offered(&["alerts", "list", "--"])).contains(&"--since"));
        assert!(names(&offered(&["alerts", "list", "--"])).contains(&"--context"));
        assert_eq!(
            names(&offered(&["alerts", "stats", "--by", ""])),
            ["rule", "level"]
        );
        assert_eq!(
            names(&offered(&["status", "-o", ""])),
            ["table", "json", "yaml"]
        );
    }

    #[test]
    fn files_are_offered_where_a_path_may_stand() {
        let lint = ["rules", "lint", ""];
        assert!(offered(&lint).files && offered(&["rules", "lint", "a", ""]).files);
        assert!(offered(&["rules", "test", "a", "--events", ""]).files);
        assert!(offered(&["status", "--kubeconfig", ""]).files);
        assert!(!offered(&["status", ""]).files && !offered(&["status", "-p", ""]).files);
        assert!(!offered(&["rules", "lint", "--"]).files);
    }

    #[test]
    fn the_name_of_a_pipeline_is_offered_where_one_may_stand() {
        assert!(!offered(&["status", ""]).pipelines);
        assert!(offered(&["status", "-p", ""]).pipelines);
        assert!(!offered(&["status", "-p", "edr", ""]).pipelines);
        assert!(offered(&["-p", ""]).pipelines);
        assert!(offered(&["alerts", "show", "--pipeline", "e"]).pipelines);
        let offer = offered(&["--context=test", "alerts", "list", "-p", "e"]);
        assert!(offer.pipelines);
        assert_eq!(offer.given["context"], "test");
    }
}
