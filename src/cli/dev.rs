//! `outrigger dev`: a sidecar for a laptop, with the in-memory broker or a real one.

use std::process::ExitCode;

use clap::Args;

use super::{Settings, client::DEFAULT_ADDRESS, fail, note, serve};
use crate::kafka::{EmbeddedBroker, Trust};

/// See the module.
#[derive(Debug, Args)]
pub(super) struct Dev {
    /// Use this real Kafka instead of the in-memory broker.
    #[arg(long, value_name = "HOST:PORT,…")]
    bootstrap: Option<String>,
    #[command(flatten)]
    settings: Settings,
}

impl Dev {
    pub(super) fn run(self) -> ExitCode {
        let mut settings = self.settings;
        // First, so that what the user sets wins.
        let mut defaults = vec![
            ("log.format", "text".to_owned()),
            ("log.level", "warn".to_owned()),
        ];
        let embedded = match self.bootstrap {
            Some(bootstrap) => {
                defaults.push(("kafka.bootstrap_servers", bootstrap));
                None
            }
            None => match EmbeddedBroker::start()
                .and_then(|broker| Ok((broker.bootstrap_servers()?, broker)))
            {
                Ok((bootstrap, broker)) => {
                    defaults.extend([
                        ("kafka.bootstrap_servers", bootstrap),
                        ("kafka.allow_auto_create_topics", "true".to_owned()),
                        // It answers a fetch at the end of a partition only after this time.
                        ("kafka.properties.fetch.wait.max.ms", "10".to_owned()),
                        // A group whose last member has left takes the next one only a second before this is over.
                        ("consume.session_timeout", "2s".to_owned()),
                        ("consume.revoke_drain", "1500ms".to_owned()),
                        ("consume.heartbeat_interval", "300ms".to_owned()),
                    ]);
                    Some(broker)
                }
                Err(error) => {
                    return fail(&format!(
                        "the in-memory broker could not be started: {error}"
                    ));
                }
            },
        };
        let defaults = defaults
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value));
        settings.set.splice(0..0, defaults);
        let loaded = match serve::load(&settings) {
            Ok(loaded) => loaded,
            Err(code) => return code,
        };
        let trust = if embedded.is_some() {
            Trust::NotTimestamps
        } else {
            Trust::Everything
        };
        let kafka = loaded.config.kafka.bootstrap_servers.clone();
        let served = serve::serve(&loaded, trust, |addresses| {
            let mut lines =
                vec!["outrigger dev: a sidecar for this machine; Ctrl-C stops it".to_owned()];
            if let Some(tcp) = addresses.tcp {
                lines.push(format!("  gRPC   {tcp}"));
            }
            if let Some(admin) = addresses.admin {
                lines.push(format!("  admin  http://{admin}"));
            }
            lines.push(format!("  Kafka  {kafka}"));
            if embedded.is_some() {
                lines.push("the broker is librdkafka's mock, with these limits:".to_owned());
                lines.extend(
                    EmbeddedBroker::LIMITS
                        .iter()
                        .map(|limit| format!("  - {limit}")),
                );
            }
            lines.push("next, in another terminal:".to_owned());
            // As it is to be typed: another port must be named.
            let door = match addresses.tcp {
                Some(tcp) if tcp.to_string() != DEFAULT_ADDRESS => format!(" --address {tcp}"),
                _ => String::new(),
            };
            lines.push(format!("  echo hello | outrigger publish greetings{door}"));
            lines.push(format!("  outrigger subscribe greetings{door}"));
            for line in lines {
                note(&line);
            }
        });
        match served {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("{error:#}")),
        }
    }
}
