//! The recipes of docs/ci.md: each block runs in a directory of its own, by a user with sudo. What is a service's, or not
//! installed here, is a program that meets the race.

use crate::support::sudo_user::SudoUser;
use crate::support::{NOBODY, Process, Trace, Turn};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag};
use saphyr::{LoadableYamlNode, Yaml};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

/// A block of code: its language, and its text.
type Block = (String, String);

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_code = false;
    for event in Parser::new(markdown) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                blocks.push((language.into_string(), String::new()));
                is_code = true;
            }
            Event::Text(text) if is_code => blocks.last_mut().unwrap().1.push_str(&text),
            Event::End(_) => is_code = false,
            _ => {}
        }
    }
    blocks
}

/// The commands in a service's configuration, in their order.
fn commands(node: &Yaml, found: &mut Vec<String>) {
    const KEYS: [&str; 4] = ["run", "script", "after_script", "commands"];
    for (key, value) in node.as_mapping().into_iter().flatten() {
        if !KEYS.contains(&key.as_str().unwrap_or_default()) {
            commands(value, found);
        } else if let Some(command) = value.as_str() {
            found.push(command.to_owned());
        } else {
            let list = value.as_sequence().unwrap();
            found.extend(list.iter().map(|command| command.as_str().unwrap().to_owned()));
        }
    }
    for value in node.as_sequence().into_iter().flatten() {
        commands(value, found);
    }
}

/// The script of a block.
fn script((language, text): &Block) -> String {
    match language.as_str() {
        "yaml" => {
            let mut found = Vec::new();
            for document in Yaml::load_from_str(text).unwrap() {
                commands(&document, &mut found);
            }
            found.join("\n")
        }
        "groovy" => {
            let lines = text.lines().map(str::trim);
            let shell = lines.filter_map(|line| line.strip_prefix("sh '")?.strip_suffix('\''));
            shell.collect::<Vec<_>>().join("\n")
        }
        "sh" => text.clone(),
        other => panic!("{other}"),
    }
}

/// A user with the programs that the recipes call.
fn user(turn: &Turn) -> Option<SudoUser> {
    let user = SudoUser::new(turn.dir.path())?;
    let race = "etxtbsy-trace workload go22315 --failures 1 --seconds 60 >/dev/null";
    for name in ["make", "cargo", "go", "pytest", "npm"] {
        user.add_program(name, race);
    }
    // The last words of the line, after the image.
    user.add_program("docker", "shift 5; sudo \"$@\"");
    user.add_program("buildkite-agent", "test \"$1\" = annotate && grep -q ETXTBSY");
    let server = "\
        case $1 in
        info) sleep 60 >/dev/null & echo $! | tee server ;;
        test) tail --pid \"$(cat server)\" -f /dev/null & ;;
        shutdown) kill \"$(cat server)\" ;;
        esac";
    user.add_program("bazel", server);
    Some(user)
}

#[test]
fn every_recipe_works_for_a_user_with_sudo() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let Some(user) = user(&turn) else {
        return;
    };
    let all = blocks(include_str!("../../../docs/ci.md"));
    assert!(all.len() > 8, "{all:?}");
    for (number, block) in all.iter().enumerate() {
        let dir = user.home.join(number.to_string());
        fs::create_dir(&dir).unwrap();
        chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
        let mut commands = script(block).replace("--for 5m", "--for 2s");
        if commands.starts_with("#!/bin/sh\n# job-started.sh") {
            commands = hooks(&dir, &[&commands, &script(&all[number + 1])]);
        } else if commands.starts_with("#!/bin/sh\n# job-completed.sh") {
            continue;
        }
        // One of several lines, by what the reader has.
        if commands.matches("-o trace.jsonl").count() > 1 {
            commands = commands.replace("sudo ", "rm -f trace.jsonl; sudo ");
        }
        // Of a package that is not here.
        let commands = commands.lines().filter(|line| !line.contains("apt-get"));
        // A command that fails ends the step; `hunt` does, with status 1, because it has found a failure.
        let commands: String = commands
            .map(|line| {
                if line.contains(" hunt ") {
                    format!("{line} || [ $? = 1 ]\n")
                } else {
                    format!("{line}\n")
                }
            })
            .collect();
        let start =
            format!("set -e; cd {number}; export GITHUB_STEP_SUMMARY=summary RUNNER_TEMP=$PWD; ");
        let ended = Process::start(&mut user.shell(&format!("{start}\n{commands}"))).wait();
        assert_eq!(ended.code, Some(0), "{commands}\n{}\n{}", ended.stdout, ended.stderr);
        if commands.contains("-o trace.jsonl") && !commands.contains("bazel") {
            let trace = Trace::parse(&fs::read_to_string(dir.join("trace.jsonl")).unwrap());
            assert!(trace.summary.failures > 0, "{commands}\n{:?}", trace.summary);
        }
    }
}

/// A job of a runner with the two hooks.
fn hooks(dir: &Path, hooks: &[&str; 2]) -> String {
    for (name, hook) in ["started", "completed"].iter().zip(hooks) {
        fs::write(dir.join(name), hook).unwrap();
        fs::set_permissions(dir.join(name), Permissions::from_mode(0o755)).unwrap();
    }
    "./started\nmake -o trace.jsonl\n./completed | grep -q '^::warning title=ETXTBSY'".into()
}
