//! Rule files -> YAML documents. A file is split at its document markers before anything parses it,
//! so that one broken document cannot take down the documents after it.

use std::io::Read;

use flate2::read::MultiGzDecoder;

use super::{Place, Problems, RuleFile};

/// What one archive may unpack to, all members together.
const MAX_UNPACKED_BYTES: u64 = 64 * 1024 * 1024;
/// How many members one archive may have.
const MAX_MEMBERS: usize = 50_000;

/// One YAML document, with as many empty lines before it as its file has, so that lines in parser
/// errors are lines of the file.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) place: Place,
    pub(super) text: String,
}

/// All documents of `file`, in their order. What cannot be read is named in `problems`.
pub(super) fn documents(file: &RuleFile, problems: &mut Problems) -> Vec<Document> {
    let mut out = Vec::new();
    if file.name.ends_with(".tar.gz") {
        match members(&file.bytes) {
            Ok(members) => {
                for (path, bytes) in members {
                    text_documents(format!("{}!{path}", file.name), &bytes, &mut out, problems);
                }
            }
            Err(message) => {
                problems.file(&file.name, format!("{message}: the archive is left out"))
            }
        }
    } else if is_yaml(&file.name) {
        text_documents(file.name.clone(), &file.bytes, &mut out, problems);
    } else {
        problems.file(
            &file.name,
            "neither a YAML file (.yml, .yaml) nor an archive (.tar.gz): it is left out",
        );
    }
    out
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yml") || name.ends_with(".yaml")
}

fn text_documents(file: String, bytes: &[u8], out: &mut Vec<Document>, problems: &mut Problems) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        problems.file(&file, "not UTF-8: the file is left out");
        return;
    };
    for (index, text) in split(text).into_iter().enumerate() {
        out.push(Document {
            place: Place {
                file: file.clone(),
                document: index + 1,
            },
            text,
        });
    }
}

/// The YAML members of a gzipped tar, in archive order. Other members are no rules and are skipped,
/// as are the `._*` files that macOS adds beside each file.
fn members(bytes: &[u8]) -> Result<Vec<(String, Vec<u8>)>, String> {
    let mut bounded = MultiGzDecoder::new(bytes).take(MAX_UNPACKED_BYTES);
    let result = read_members(&mut bounded);
    if bounded.limit() == 0 {
        return Err(format!(
            "unpacks to more than {} MiB",
            MAX_UNPACKED_BYTES / (1024 * 1024)
        ));
    }
    result
}

fn read_members(reader: impl Read) -> Result<Vec<(String, Vec<u8>)>, String> {
    let broken = |error: std::io::Error| format!("not a readable .tar.gz archive: {error}");
    let mut archive = tar::Archive::new(reader);
    let mut out = Vec::new();
    for (index, entry) in archive.entries().map_err(broken)?.enumerate() {
        if index == MAX_MEMBERS {
            return Err(format!("has more than {MAX_MEMBERS} members"));
        }
        let mut entry = entry.map_err(broken)?;
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let name = path.rsplit('/').next().unwrap_or_default();
        if !entry.header().entry_type().is_file() || !is_yaml(name) || name.starts_with("._") {
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        out.push((path, bytes));
    }
    Ok(out)
}

/// Splits a YAML stream. YAML reserves `---` and `...` at the start of a line for document markers,
/// even inside of scalars, so this needs no parser. Documents without content are skipped.
fn split(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut chunk = String::new();
    let mut first_line = 0;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let ends = is_marker(line, "...");
        if ends || is_marker(line, "---") {
            flush(&mut chunk, first_line, &mut out);
            first_line = if ends { number + 1 } else { number };
        }
        if !ends {
            chunk.push_str(line);
        }
    }
    flush(&mut chunk, first_line, &mut out);
    out
}

fn flush(chunk: &mut String, first_line: usize, out: &mut Vec<String>) {
    let chunk = std::mem::take(chunk);
    let has_content = chunk.lines().any(|line| {
        let rest = line.strip_prefix("---").unwrap_or(line).trim();
        !(rest.is_empty() || rest.starts_with('#') || line.starts_with('%'))
    });
    if has_content {
        out.push("\n".repeat(first_line) + &chunk);
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn trimmed(text: &str) -> Vec<String> {
        split(text).iter().map(|d| d.trim().to_owned()).collect()
    }

    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        gzip(&builder.into_inner().unwrap())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn documents_are_split_at_markers_only() {
        assert_eq!(
            trimmed("# head\n---\na: 1\n--- # next\nb: |\n  ---\n  x\n---text: 2\n...\nc: 3\n"),
            [
                "---\na: 1",
                "--- # next\nb: |\n  ---\n  x\n---text: 2",
                "c: 3"
            ]
        );
    }

    #[test]
    fn documents_without_content_are_none() {
        assert!(trimmed("\u{feff}%YAML 1.2\n---\n# nothing\n---\n...\n").is_empty());
    }

    #[test]
    fn a_document_keeps_the_lines_of_its_file() {
        assert_eq!(split("a: 1\n---\nb: 2\n")[1], "\n---\nb: 2\n");
    }

    #[test]
    fn an_archive_gives_its_yaml_members() {
        let bytes = archive(&[
            ("rules/a.yml", b"a: 1"),
            ("README.md", b"no rule"),
            ("rules/._a.yml", b"\x00\x05"),
            ("b.yaml", b"b: 2"),
        ]);
        let names: Vec<_> = members(&bytes).unwrap().into_iter().map(|m| m.0).collect();
        assert_eq!(names, ["rules/a.yml", "b.yaml"]);
    }

    #[test]
    fn an_archive_that_unpacks_to_too_much_is_refused() {
        let zeros = vec![0_u8; usize::try_from(MAX_UNPACKED_BYTES).unwrap()];
        let bytes = archive(&[("a.yml", &zeros)]);
        assert_eq!(members(&bytes).unwrap_err(), "unpacks to more than 64 MiB");
    }

    #[test]
    fn a_cut_archive_is_refused_as_a_whole() {
        let bytes = archive(&[("a.yml", b"a: 1"), ("b.yml", b"b: 1")]);
        let error = members(&bytes[..bytes.len() / 2]).unwrap_err();
        assert!(
            error.starts_with("not a readable .tar.gz archive: "),
            "{error}"
        );
    }
}
