//! The archive. Objects and texts are redacted as they come in; there is no other way.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use serde::Serialize;

use super::redact;
use crate::ctl::output::{moment, plain};

const MANIFEST: &str = "MANIFEST.txt";

/// Files, and what is missing among them.
#[derive(Debug, Default)]
pub(super) struct Bundle {
    files: BTreeMap<String, Vec<u8>>,
    left_out: Vec<(String, String)>,
}

impl Bundle {
    /// Adds an object as YAML.
    pub(super) fn object(&mut self, name: &str, object: &impl Serialize) {
        let mut value = match serde_json::to_value(object) {
            Ok(value) => value,
            Err(error) => return self.left_out(name, error.to_string()),
        };
        redact::value(&mut value);
        match serde_saphyr::to_string(&value) {
            // Once more over the text: a secret may stand in a key.
            Ok(text) => self.text(name, &text),
            Err(error) => self.left_out(name, error.to_string()),
        }
    }

    /// Adds a text.
    pub(super) fn text(&mut self, name: &str, text: &str) {
        self.files
            .insert(name.to_owned(), redact::text(text).into_bytes());
    }

    /// Says that something is not in it, and why.
    pub(super) fn left_out(&mut self, what: &str, why: impl Into<String>) {
        self.left_out
            .push((what.to_owned(), redact::text(&why.into())));
    }

    /// What is in it and what is not, for people.
    pub(super) fn manifest(&self, pipeline: &str, now: Timestamp) -> String {
        let mut out = format!(
            "report on pipeline {pipeline}, made {}\n\nin it:\n",
            moment(now)
        );
        let mut line = |text: std::fmt::Arguments<'_>| {
            out.write_fmt(text).expect("a String takes every text");
        };
        for (name, bytes) in &self.files {
            line(format_args!("  {} ({} bytes)\n", plain(name), bytes.len()));
        }
        line(format_args!("\nleft out:\n"));
        for (what, why) in &self.left_out {
            line(format_args!("  {}: {}\n", plain(what), plain(why)));
        }
        line(format_args!(
            "\ntaken out of everything: values of environment variables, credentials in URLs, NATS seeds and JWTs, private keys, authorization headers, and what stands behind words such as password, token or secret\n"
        ));
        out
    }

    /// Writes the archive.
    pub(super) fn write(&self, manifest: &str, out: impl Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(out, Compression::default()));
        let manifest = (MANIFEST, manifest.as_bytes());
        let files = self
            .files
            .iter()
            .map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        for (name, bytes) in std::iter::once(manifest).chain(files) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            archive.append_data(&mut header, format!("report/{name}"), bytes)?;
        }
        archive.into_inner()?.finish()?.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use serde_json::json;

    use super::*;

    const SEED: &str = "SUAIBDPBAUTWCWBKIO6XHQNINK5FWJW4OHLXC3HQ2KFE4PEJUA44CNHTC4";
    const JWT: &str =
        "eyJ0eXAiOiJKV1QiLCJhbGciOiJlZDI1NTE5In0.eyJqdGkiOiJPUEZ4In0.c2lnbmF0dXJlLWhlcmU";

    fn secrets() -> Vec<String> {
        let mut out: Vec<_> = (0..9).map(|at| format!("hunter{at}secretvalue")).collect();
        out.extend([SEED.to_owned(), JWT.to_owned()]);
        out
    }

    fn unpacked(bundle: &Bundle) -> String {
        let manifest = bundle.manifest("prod/edr", Timestamp::UNIX_EPOCH);
        let mut bytes = Vec::new();
        bundle.write(&manifest, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(GzDecoder::new(bytes.as_slice()));
        let mut out = String::new();
        for entry in archive.entries().unwrap() {
            entry.unwrap().read_to_string(&mut out).unwrap();
        }
        out
    }

    #[test]
    fn no_secret_that_is_fed_into_everything_comes_out() {
        let secrets = secrets();
        let [a, b, c, d, e, f, g, h, i] = std::array::from_fn(|at| secrets[at].as_str());
        let mut bundle = Bundle::default();
        bundle.object("pods.yaml", &json!({
            "metadata": {"annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": format!("{{\"env\":\"{a}\"}}"),
                "note": format!("see https://bob:{b}@example.com/x"),
            }},
            "spec": {"containers": [{
                "env": [{"name": "NATS_PASSWORD", "value": c}, {"name": "HARMLESS", "value": d}],
                "args": [format!("--token={e}"), "--creds", SEED],
            }]},
            "status": {"message": format!("Authorization: Bearer {f}"), "password": g},
            "jwt": JWT,
        }));
        bundle.text("worker.log", &format!(
            "connect nats://user:{h}@nats:4222\npassword: {i}\n-----BEGIN NATS USER JWT-----\n{JWT}\n------END NATS USER JWT------\n\
             -----BEGIN USER NKEY SEED-----\n{SEED}\n------END USER NKEY SEED------\n"
        ));
        bundle.left_out("logs", format!("cannot connect to tls://x:{a}@y"));
        let text = unpacked(&bundle);
        for secret in secrets {
            assert!(!text.contains(&secret), "{secret} is in {text}");
        }
        assert!(
            text.contains("HARMLESS") && text.contains("nats:4222"),
            "{text}"
        );
    }

    #[test]
    fn the_manifest_lists_what_is_there_and_what_is_not() {
        let mut bundle = Bundle::default();
        bundle.text("worker.log", "a line\n");
        bundle.left_out("operator logs", "forbidden");
        let manifest = bundle.manifest("prod/edr", Timestamp::UNIX_EPOCH);
        assert!(manifest.contains("  worker.log (7 bytes)\n"), "{manifest}");
        assert!(
            manifest.contains("  operator logs: forbidden\n"),
            "{manifest}"
        );
        assert!(unpacked(&bundle).starts_with(&manifest));
    }

    #[test]
    fn names_of_secrets_stay() {
        let mut bundle = Bundle::default();
        bundle.object(
            "pipeline.yaml",
            &json!({"spec": {"nats": {
            "credentialsSecretRef": {"name": "edr-nats", "key": "user.creds"},
        }}, "secretName": "edr-ca"}),
        );
        let text = unpacked(&bundle);
        for name in ["edr-nats", "user.creds", "edr-ca"] {
            assert!(text.contains(name), "{name} is not in {text}");
        }
    }
}
