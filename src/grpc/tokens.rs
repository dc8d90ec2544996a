//! The bearer tokens that callers over TCP may have, from a file that is read again when it changes.
//!
//! Only digests are kept, and looked up: neither the memory nor the time of an answer tells of a token. What always holds: a file that is no
//! good changes nothing once there was a good one.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use openssl::sha::sha256;

/// The shortest token: what one can guess is none.
const MIN_TOKEN: usize = 16;

/// The tokens of the process.
#[derive(Debug)]
pub(super) struct Tokens {
    file: PathBuf,
    names: RwLock<HashMap<[u8; 32], String>>,
}

impl Tokens {
    /// Reads the file.
    pub(super) fn open(file: &Path) -> io::Result<Self> {
        let names = read(file)?;
        Ok(Self {
            file: file.to_owned(),
            names: RwLock::new(names),
        })
    }

    /// Reads the file again.
    pub(super) fn refresh(&self) {
        match read(&self.file) {
            Ok(fresh) => {
                let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
                if *names != fresh {
                    tracing::info!(tokens = fresh.len(), "new bearer tokens");
                    *names = fresh;
                }
            }
            Err(error) => tracing::warn!("listen.tokens_file: the old tokens stay: {error}"),
        }
    }

    /// The name of a token.
    pub(super) fn name(&self, token: &[u8]) -> Option<String> {
        let names = self.names.read().unwrap_or_else(PoisonError::into_inner);
        names.get(&sha256(token)).cloned()
    }
}

/// How many tokens a file has; an error of the kind `InvalidData` says what is wrong with its lines.
pub fn tokens_in(file: &Path) -> io::Result<usize> {
    read(file).map(|names| names.len())
}

fn read(file: &Path) -> io::Result<HashMap<[u8; 32], String>> {
    let text = fs::read_to_string(file)?;
    parse(&text).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))
}

/// The problem names a line, and repeats nothing of it.
fn parse(text: &str) -> Result<HashMap<[u8; 32], String>, String> {
    let mut names = HashMap::new();
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let Some((name, token)) = line.split_once(char::is_whitespace) else {
            return Err(format!("line {number} is not a name, a blank and a token"));
        };
        let token = token.trim();
        if !name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        {
            return Err(format!(
                "line {number}: a name has only letters, digits and ._-"
            ));
        }
        if token.len() < MIN_TOKEN || token.contains(char::is_whitespace) {
            return Err(format!(
                "line {number}: a token is one word of at least {MIN_TOKEN} characters"
            ));
        }
        if names
            .insert(sha256(token.as_bytes()), name.to_owned())
            .is_some()
        {
            return Err(format!("line {number}: a token stands here twice"));
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_its_tokens_and_a_name_may_have_several() {
        let text = "# callers\n\norders 0123456789abcdef\norders fedcba9876543210\nbilling  aaaaaaaaaaaaaaaa \n";
        let names = parse(text).unwrap();
        assert_eq!(names[&sha256(b"0123456789abcdef")], "orders");
        assert_eq!(names[&sha256(b"fedcba9876543210")], "orders");
        assert_eq!(names[&sha256(b"aaaaaaaaaaaaaaaa")], "billing");
    }

    #[test]
    fn what_is_wrong_is_told_by_line_and_repeats_no_token() {
        for (text, said) in [
            ("orders", "line 1 is not"),
            (
                "ok 0123456789abcdef\norders canary",
                "line 2: a token is one word",
            ),
            ("or/ders canary0123456789abcdef", "line 1: a name has only"),
            (
                "a canary0123456789a\nb canary0123456789a",
                "line 2: a token stands here twice",
            ),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(
                problem.contains(said) && !problem.contains("canary"),
                "{problem}"
            );
        }
    }
}
