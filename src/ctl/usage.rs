//! The usage of every verb in docs/kubectl.md, written from the code.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use clap::{Command, CommandFactory};

use super::Cli;

const PAGE: &str = "docs/kubectl.md";
const BEGIN: &str = "<!-- usage: `make generate` writes what follows -->\n";

/// The page up to the usage is written by hand.
#[test]
fn generated_usage_of_the_plugin_is_current() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let committed = fs::read_to_string(&file).unwrap();
    let (by_hand, _) = committed.split_once(BEGIN).unwrap();
    let content = format!("{by_hand}{BEGIN}{}", usage());
    if env::var_os("LOOKBACK_GENERATE").is_some() {
        fs::write(&file, &content).unwrap();
        return;
    }
    assert!(
        committed == content,
        "{PAGE} is not what the code says: run `make generate`"
    );
}

#[test]
fn every_verb_has_an_example() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = fs::read_to_string(file).unwrap();
    let (by_hand, _) = page.split_once(BEGIN).unwrap();
    let mut verbs = Vec::new();
    leaves(&Cli::command(), "kubectl lookback", &mut verbs);
    for (name, _) in verbs {
        assert!(
            by_hand.contains(&format!("$ {name}")),
            "{PAGE} has no example of {name}"
        );
    }
}

fn usage() -> String {
    let mut out = String::new();
    let mut say = |text: &str| writeln!(out, "{text}").unwrap();
    let mut command = Cli::command().disable_help_subcommand(true);
    let mut verbs = Vec::new();
    // Before anything is rendered, which hands the options of all on to each.
    leaves(&command, "kubectl lookback", &mut verbs);
    say("\n### kubectl lookback\n\nThese options stand with every verb.\n");
    block(&mut say, &command.render_long_help().to_string());
    for (name, verb) in verbs {
        say(&format!("\n### {name}\n"));
        let mut verb = verb.bin_name(name).disable_help_flag(true);
        block(&mut say, &verb.render_long_help().to_string());
    }
    out
}

fn block(say: &mut impl FnMut(&str), text: &str) {
    say("```text");
    for line in text.trim_end().lines() {
        say(line.trim_end());
    }
    say("```");
}

/// The commands that do something, by their whole names.
fn leaves(command: &Command, name: &str, out: &mut Vec<(String, Command)>) {
    if !command.has_subcommands() {
        out.push((name.to_owned(), command.clone()));
        return;
    }
    for inner in command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
    {
        leaves(inner, &format!("{name} {}", inner.get_name()), out);
    }
}
