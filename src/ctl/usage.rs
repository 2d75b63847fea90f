//! The usage of every verb in docs/kubectl.md, written from the code.

use std::fmt::Write;
use std::path::Path;
use std::{env, fs};

use clap::{Command, CommandFactory, Parser};

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

#[test]
fn the_help_of_every_verb_ends_with_examples_that_are_understood() {
    let mut verbs = Vec::new();
    leaves(&Cli::command(), "kubectl lookback", &mut verbs);
    for (name, verb) in verbs {
        let help = verb.get_after_help().unwrap().to_string();
        let (_, examples) = help.split_once("Examples:\n").unwrap();
        for example in examples.lines() {
            assert!(example.trim_start().starts_with(&name), "{name}: {example}");
            let parsed = Cli::try_parse_from(words(example));
            assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        }
    }
}

/// As a shell splits a line, up to a pipe or a redirection.
fn words(line: &str) -> Vec<String> {
    let mut words = vec!["kubectl-lookback".to_owned()];
    for (at, part) in line.split('"').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let bare = part.split_whitespace();
        let until = bare.take_while(|word| !["|", ">", "<"].contains(word));
        words.extend(until.map(str::to_owned));
    }
    words.drain(1..3);
    words
}

#[test]
fn what_a_verb_takes_stands_apart_from_where_to_look() {
    let mut root = Cli::command();
    root.build();
    let verb = root.find_subcommand_mut("status").unwrap();
    let help = verb.render_help().to_string();
    let (own, shared) = help.split_once("\nWhere to look:\n").unwrap();
    assert!(
        own.contains("--watch") && own.contains("--output"),
        "{help}"
    );
    let (shared, examples) = shared.split_once("\nExamples:\n").unwrap();
    for option in ["--pipeline", "--namespace", "--context", "--nats-url"] {
        assert!(
            shared.contains(option) && !own.contains(option),
            "{option}: {help}"
        );
    }
    assert!(examples.contains("status -n detections -p edr"), "{help}");
}

fn usage() -> String {
    let mut out = String::new();
    let mut say = |text: &str| writeln!(out, "{text}").unwrap();
    let mut command = Cli::command().disable_help_subcommand(true);
    let mut verbs = Vec::new();
    // Before anything is rendered, which hands the options of all on to each.
    leaves(&command, "kubectl lookback", &mut verbs);
    say("\n### kubectl lookback\n\nThese options stand with every verb.\n");
    block(&mut say, &command.render_help().to_string());
    for (name, verb) in verbs {
        say(&format!("\n### {name}\n"));
        let mut verb = verb.bin_name(name).disable_help_flag(true);
        block(&mut say, &verb.render_help().to_string());
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
