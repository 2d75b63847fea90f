//! Intruders: short scripts of events that come one by one between the noise. Each sets off rules of
//! `deploy/examples/rules`, in turn, so that any few thousand events hold them all.

use std::collections::VecDeque;

use super::random::Random;
use super::{Fields, Scene, noise};

const LOWER: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
/// One event in so many is an intruder's, while one is at work.
const SPACING: u64 = 4;
/// A new intruder comes about every so many events.
const ARRIVAL: u64 = 120;

/// The intruders at work.
#[derive(Default)]
pub(super) struct Campaign {
    script: VecDeque<Fields>,
    arrived: usize,
}

impl Campaign {
    /// The next event of an intruder, or `None` when it is the noise's turn.
    pub(super) fn next(&mut self, random: &mut Random, _scene: &Scene) -> Option<Fields> {
        if self.script.is_empty() && random.below(ARRIVAL) == 0 {
            let act = ACTS[self.arrived % ACTS.len()];
            self.arrived += 1;
            self.script = act(random).into();
        }
        if random.below(SPACING) == 0 {
            self.script.pop_front()
        } else {
            None
        }
    }
}

type Act = fn(&mut Random) -> Vec<Fields>;

const ACTS: [Act; 7] = [guess, spray, document, exfiltrate, tunnel, discover, ransom];

/// Guesses one account's password, uses it, and installs a service.
fn guess(random: &mut Random) -> Vec<Fields> {
    let computer = noise::computer(random);
    let user = noise::user(random);
    let address = address(random);
    let mut script: Vec<_> = (0..12)
        .map(|_| noise::logon(random, &computer, &user, 4625, 3, &address))
        .collect();
    script.push(noise::logon(random, &computer, &user, 4624, 10, &address));
    let path = format!(r"C:\Windows\Temp\{}.exe", random.text(LOWER, 8));
    script.push(noise::service(&computer, "Updater", &path));
    script
}

/// Tries one password on many accounts.
fn spray(random: &mut Random) -> Vec<Fields> {
    let address = address(random);
    (0..16)
        .map(|_| {
            let computer = noise::computer(random);
            let user = format!(r"CORP\{}", random.text(LOWER, 6));
            noise::logon(random, &computer, &user, 4625, 3, &address)
        })
        .collect()
}

/// A document starts a shell, which decodes a command and reads LSASS.
fn document(random: &mut Random) -> Vec<Fields> {
    let computer = noise::computer(random);
    let user = noise::user(random);
    let powershell = r"C:\Windows\System32\WindowsPowerShell\v1.0\powershell.exe";
    let word = r"C:\Program Files\Microsoft Office\root\Office16\WINWORD.EXE";
    let code = random.text(
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
        120,
    );
    let command = format!("powershell.exe -nop -w hidden -enc {code}");
    let run = r"HKU\S-1-5-21\Software\Microsoft\Windows\CurrentVersion\Run\Helper";
    vec![
        noise::process(
            random,
            &computer,
            &user,
            powershell,
            &command,
            word,
            "Microsoft Corporation",
        ),
        noise::network(random, &computer, &user, 4444),
        noise::registry(
            &computer,
            &user,
            run,
            r"wscript.exe C:\Users\Public\helper.vbs",
        ),
        noise::access(
            &computer,
            powershell,
            r"C:\Windows\System32\lsass.exe",
            "0x1410",
        ),
    ]
}

/// Sends much data outside.
fn exfiltrate(random: &mut Random) -> Vec<Fields> {
    let computer = noise::computer(random);
    let user = noise::user(random);
    (0..8)
        .map(|_| {
            let bytes = 30_000_000 + random.below(20_000_000);
            noise::transfer(&computer, &user, "203.0.113.66", bytes)
        })
        .collect()
}

/// Speaks through long DNS names.
fn tunnel(random: &mut Random) -> Vec<Fields> {
    let computer = noise::computer(random);
    let image = r"C:\Users\Public\sync.exe";
    (0..14)
        .map(|_| {
            let name = format!("{}.t.example.org", random.text(LOWER, 90));
            noise::dns(&computer, image, &name)
        })
        .collect()
}

/// Looks around.
fn discover(random: &mut Random) -> Vec<Fields> {
    let computer = noise::computer(random);
    let user = noise::user(random);
    [
        "whoami /all",
        "net group /domain",
        "nltest /dclist:corp",
        "systeminfo",
        "quser",
    ]
    .iter()
    .map(|command| {
        let program = command.split(' ').next().unwrap_or(command);
        let image = format!(r"C:\Windows\System32\{program}.exe");
        let shell = r"C:\Windows\System32\cmd.exe";
        noise::process(
            random,
            &computer,
            &user,
            &image,
            command,
            shell,
            "Microsoft Corporation",
        )
    })
    .collect()
}

/// Deletes the shadow copies.
fn ransom(random: &mut Random) -> Vec<Fields> {
    let computer = noise::computer(random);
    let image = r"C:\Windows\System32\vssadmin.exe";
    let shell = r"C:\Windows\System32\cmd.exe";
    let command = "vssadmin.exe Delete Shadows /All /Quiet";
    let system = r"NT AUTHORITY\SYSTEM";
    vec![noise::process(
        random,
        &computer,
        system,
        image,
        command,
        shell,
        "Microsoft Corporation",
    )]
}

fn address(random: &mut Random) -> String {
    format!("203.0.113.{}", random.below(250))
}
