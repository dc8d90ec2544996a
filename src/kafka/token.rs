//! OAUTHBEARER tokens: fetched here, off librdkafka's threads, from an endpoint, a file or a command.
//!
//! Not here: when to fetch and who gets the token (`security`). No state. What always holds: a fetch ends within 20 s, and no
//! error repeats a secret, a token or what a server or program wrote beyond its error code.

mod endpoint;

use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use tokio::process::Command;

use super::security;
use crate::config::{Secret, TokenSource};

/// The bound of one fetch.
const TIMEOUT: Duration = Duration::from_secs(20);

/// How long a token is used that does not say how long it lives.
const OPAQUE_LIFETIME: Duration = Duration::from_secs(300);

/// A token and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) value: Secret,
    /// Whom it is for: librdkafka wants a name; brokers go by the token alone.
    pub(super) principal: String,
    pub(super) expires: SystemTime,
}

impl Token {
    /// A token as it was given, with the lifetime that came with it.
    fn new(
        value: &str,
        lifetime: Option<Duration>,
        principal: Option<&str>,
    ) -> Result<Self, String> {
        let value = value.trim();
        if value.is_empty() {
            return Err("the token is empty".to_owned());
        }
        let claims = claims(value);
        let now = SystemTime::now();
        let expires = claims
            .exp
            .map(|exp| UNIX_EPOCH + Duration::from_secs_f64(exp.clamp(0.0, 1e11)))
            .into_iter()
            .chain(lifetime.map(|lifetime| now + lifetime))
            .min()
            .unwrap_or(now + OPAQUE_LIFETIME);
        if expires <= now {
            return Err("the token has expired".to_owned());
        }
        Ok(Self {
            value: Secret::new(value),
            principal: principal
                .map(str::to_owned)
                .or(claims.sub)
                .unwrap_or_else(|| "outrigger".to_owned()),
            expires,
        })
    }
}

impl Token {
    /// Milliseconds since the epoch.
    pub(super) fn expires_millis(&self) -> i64 {
        let since = self.expires.duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX / 1000)
    }
}

/// What is read of a JSON Web Token; one of another kind has none of it.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Option<f64>,
    #[serde(default)]
    sub: Option<String>,
}

fn claims(token: &str) -> Claims {
    token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .unwrap_or_default()
}

/// Gets a token. The error is for the operator.
pub(super) async fn fetch(source: &TokenSource) -> Result<Token, String> {
    let fetched = async {
        match source {
            TokenSource::File(path) => read(path),
            TokenSource::Command(command) => run(command).await,
            TokenSource::Endpoint {
                url,
                client_id,
                client_secret,
                scope,
                ca_file,
            } => {
                let id = security::resolve(client_id)?;
                let secret = security::resolve(client_secret)?;
                let request = endpoint::Request {
                    url,
                    client_id: &id,
                    client_secret: &secret,
                    scope: scope.as_deref(),
                    ca_file: ca_file.as_deref(),
                };
                let answer = endpoint::ask(&request)
                    .await
                    .map_err(|error| format!("{url}: {error}"))?;
                let lifetime = answer
                    .expires_in
                    .map(|seconds| Duration::from_secs_f64(seconds.clamp(0.0, 1e9)));
                Token::new(&answer.access_token, lifetime, Some(&id))
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, fetched).await {
        Ok(result) => result,
        Err(_) => Err(format!("no token within {} s", TIMEOUT.as_secs())),
    }
}

fn read(path: &Path) -> Result<Token, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Token::new(&text, None, None).map_err(|error| format!("{}: {error}", path.display()))
}

async fn run(command: &[String]) -> Result<Token, String> {
    let [program, arguments @ ..] = command else {
        return Err("the token command is empty".to_owned());
    };
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status));
    }
    Token::new(&String::from_utf8_lossy(&output.stdout), None, None)
        .map_err(|error| format!("{program}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn a_token_says_itself_when_it_expires_and_whose_it_is() {
        let exp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
            + 600;
        let token =
            Token::new(&jwt(&format!(r#"{{"exp":{exp},"sub":"me"}}"#)), None, None).unwrap();
        assert_eq!(token.expires, UNIX_EPOCH + Duration::from_secs(exp));
        assert_eq!(token.principal, "me");
    }

    #[test]
    fn the_shorter_of_two_lifetimes_counts() {
        let exp = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
            + 600;
        let token = Token::new(
            &jwt(&format!(r#"{{"exp":{exp}}}"#)),
            Some(Duration::from_secs(60)),
            Some("id"),
        )
        .unwrap();
        assert!(token.expires <= SystemTime::now() + Duration::from_secs(60));
        assert_eq!(token.principal, "id");
    }

    #[test]
    fn a_token_of_another_kind_is_used_for_a_while() {
        let token = Token::new("opaque\n", None, None).unwrap();
        assert_eq!(token.value.expose(), "opaque");
        assert!(token.expires > SystemTime::now() + OPAQUE_LIFETIME - Duration::from_secs(10));
    }

    #[test]
    fn an_expired_or_an_empty_token_is_an_error_that_does_not_repeat_it() {
        let expired = jwt(r#"{"exp":1000}"#);
        let error = Token::new(&expired, None, None).unwrap_err();
        assert!(
            error.contains("expired") && !error.contains(&expired),
            "{error}"
        );
        assert!(Token::new(" \n", None, None).is_err());
    }

    #[tokio::test]
    async fn a_command_prints_a_token_or_says_how_it_ended() {
        let command = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let token = fetch(&TokenSource::Command(command("echo tok")))
            .await
            .unwrap();
        assert_eq!(token.value.expose(), "tok");
        let error = fetch(&TokenSource::Command(command("echo secret >&2; exit 3")))
            .await
            .unwrap_err();
        assert!(
            error.contains("exit status: 3") && !error.contains("secret"),
            "{error}"
        );
    }
}
