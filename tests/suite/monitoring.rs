//! Dashboard and alerts: each alert is fired by a test, what they ask for is told by a live sidecar, and a broker that is down is an alert.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use outrigger::grpc::proto::{self, settle_item::Action};
use serde_json::Value;
use yaml_rust2::{Yaml, YamlLoader};

use crate::{
    client::{Subscription, init, publish_request, record},
    kafka::{Kafka, fresh},
    prometheus::{Prometheus, deploy, tool, wait_until},
    secured::{Secured, USER, settings},
    sidecar::Sidecar,
};

const UNORDERED: proto::Ordering = proto::Ordering::Unordered;
const QUICK: (&str, &str) = ("metrics.statistics_interval", "1s");
/// Series that Prometheus makes itself, with their labels.
const OF_PROMETHEUS: [(&str, &[&str]); 2] = [
    ("up", &[]),
    ("ALERTS", &["alertname", "alertstate", "severity", "tier"]),
];
/// Labels that Prometheus adds to what it reads, by `deploy/prometheus` or by the monitors of the chart.
const OF_THE_TARGET: [&str; 5] = ["job", "instance", "namespace", "pod", "container"];

fn succeeded(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Runs a command with this on its standard input.
fn with_input(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// An expression, and the labels that are named beside it.
struct Question {
    expression: String,
    labels: Vec<String>,
    /// A panel shows it.
    is_shown: bool,
}

/// The rules' file.
fn rules() -> Yaml {
    let text = fs::read_to_string(deploy("prometheus/alerts.yaml")).unwrap();
    YamlLoader::load_from_str(&text).unwrap().remove(0)
}

/// Every rule with the name of its group.
fn alerts(rules: &Yaml) -> impl Iterator<Item = (&str, &Yaml)> {
    rules["groups"].as_vec().unwrap().iter().flat_map(|group| {
        let name = group["name"].as_str().unwrap();
        let rules = group["rules"].as_vec().unwrap();
        rules.iter().map(move |rule| (name, rule))
    })
}

/// What the alerts ask for; their texts name labels as `$labels.NAME`.
fn asked_by_alerts() -> Vec<Question> {
    let question = |(_, rule): (_, &Yaml)| {
        let texts = rule["annotations"].as_hash().unwrap().values();
        let labels = texts.flat_map(|text| names_after("$labels.", text.as_str().unwrap()));
        Question {
            expression: rule["expr"].as_str().unwrap().to_owned(),
            labels: labels.collect(),
            is_shown: false,
        }
    };
    alerts(&rules()).map(question).collect()
}

/// What the dashboard asks for, with its variables as "All" and an interval that fits the test; its legends name labels as `{{NAME}}`.
fn asked_by_dashboard() -> Vec<Question> {
    let text = fs::read_to_string(deploy("grafana/outrigger.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let variables = list(&dashboard["templating"]["list"]);
    let filled = |expression: &str| {
        let mut expression = expression.replace("$__rate_interval", "5s");
        for variable in &variables {
            let name = format!("${}", variable["name"].as_str().unwrap());
            expression = expression.replace(&name, ".*");
        }
        assert!(
            !expression.contains('$'),
            "an unknown variable: {expression}"
        );
        expression
    };
    let panels = list(&dashboard["panels"]);
    let targets = panels.iter().flat_map(|panel| list(&panel["targets"]));
    let shown = targets.map(|target| Question {
        expression: filled(target["expr"].as_str().unwrap()),
        labels: names_after("{{", target["legendFormat"].as_str().unwrap()),
        is_shown: true,
    });
    // label_values(SELECTOR, LABEL)
    let of_variable = |variable: &Value| {
        let query = variable["query"]["query"].as_str()?;
        let arguments = query.strip_prefix("label_values(")?.strip_suffix(')')?;
        let (selector, label) = arguments.rsplit_once(", ")?;
        Some(Question {
            expression: filled(selector),
            labels: vec![label.to_owned()],
            is_shown: true,
        })
    };
    let chosen: Vec<_> = variables.iter().filter_map(of_variable).collect();
    assert_eq!(chosen.len() + 1, variables.len(), "all but the data source");
    shown.chain(chosen).collect()
}

/// The names that follow a mark.
fn names_after(mark: &str, text: &str) -> Vec<String> {
    let rests = text.split(mark).skip(1);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    rests
        .map(|rest| rest.chars().take_while(|letter| is_name(*letter)).collect())
        .collect()
}

/// What an expression asks for: its selectors, each with its metrics and the labels it matches, and the labels that it names elsewhere.
struct Asked {
    expression: String,
    selectors: Vec<(Vec<String>, Vec<String>)>,
    labels: Vec<String>,
}

fn parsed(questions: &[Question]) -> Vec<Asked> {
    let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/node");
    let packages = Command::new(node.join("install")).output().unwrap();
    succeeded(&packages);
    let packages = String::from_utf8(packages.stdout).unwrap();
    let mut parser = Command::new("node");
    parser.arg(node.join("promql.js")).arg(packages.trim());
    let expressions: Vec<_> = questions.iter().map(|asked| &asked.expression).collect();
    let output = with_input(&mut parser, &serde_json::to_string(&expressions).unwrap());
    succeeded(&output);
    let parsed: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(parsed.len(), questions.len());
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().unwrap().iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let asked = |(question, value): (&Question, &Value)| {
        let selectors = value["selectors"].as_array().unwrap().iter();
        Asked {
            expression: question.expression.clone(),
            selectors: selectors
                .map(|selector| (texts(&selector["metrics"]), texts(&selector["labels"])))
                .collect(),
            labels: [texts(&value["labels"]), question.labels.clone()].concat(),
        }
    };
    questions.iter().zip(&parsed).map(asked).collect()
}

/// The names of all samples that sidecars tell, each with the names of its labels.
type Told = BTreeMap<String, BTreeSet<String>>;

fn told(sidecars: &[&Sidecar]) -> Told {
    let mut told = Told::new();
    for sidecar in sidecars {
        let (_, body) = sidecar.get("/metrics");
        let samples = body
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for sample in samples {
            let end = sample.find(['{', ' ']).expect("a value");
            let (name, rest) = sample.split_at(end);
            let labels = told.entry(name.to_owned()).or_default();
            let pairs = rest.split("=\"").filter_map(|before| {
                let name = before.rsplit(['{', ',']).next()?;
                (name.len() < before.len()).then(|| name.to_owned())
            });
            labels.extend(pairs);
        }
    }
    told
}

/// What is asked for and not told.
fn missing(asked: &[Asked], told: &Told) -> BTreeSet<String> {
    let mut missing = BTreeSet::new();
    for asked in asked {
        let mut known: BTreeSet<&str> = OF_THE_TARGET.into();
        for (metrics, matched) in &asked.selectors {
            for metric in metrics {
                let own = OF_PROMETHEUS.iter().find(|(name, _)| name == metric);
                let labels: Vec<&str> = match (own, told.get(metric)) {
                    (Some((_, labels)), _) => labels.to_vec(),
                    (None, Some(labels)) => labels.iter().map(String::as_str).collect(),
                    (None, None) => {
                        missing.insert(metric.clone());
                        continue;
                    }
                };
                let is_there =
                    |label: &str| labels.contains(&label) || OF_THE_TARGET.contains(&label);
                for label in matched.iter().filter(|label| !is_there(label)) {
                    missing.insert(format!("{metric}{{{label}}}"));
                }
                known.extend(labels);
            }
        }
        for label in &asked.labels {
            if !known.contains(label.as_str()) {
                missing.insert(format!("{label} of {}", asked.expression));
            }
        }
    }
    missing
}

#[test]
fn promtool_takes_configuration_and_rules_and_every_alert_is_fired_by_a_test() {
    for arguments in [
        ["check", "config", "prometheus/prometheus.yml"],
        ["check", "rules", "prometheus/alerts.yaml"],
        ["test", "rules", "prometheus/alerts_test.yaml"],
    ] {
        let [verb, kind, file] = arguments;
        let run = Command::new(tool("promtool"))
            .args([verb, kind])
            .arg(deploy(file))
            .output()
            .expect("tests/setup has unpacked it");
        succeeded(&run);
    }
    let tests = fs::read_to_string(deploy("prometheus/alerts_test.yaml")).unwrap();
    for (_, rule) in alerts(&rules()) {
        let name = rule["alert"].as_str().unwrap();
        let fires = format!("ALERTS{{alertname=\"{name}\", alertstate=\"firing\"");
        assert!(tests.contains(&fires), "{name} is fired by no test");
    }
}

#[test]
fn every_alert_has_a_severity_the_tier_of_its_group_and_says_what_to_do() {
    let rules = rules();
    let mut tiers = BTreeSet::new();
    for (group, rule) in alerts(&rules) {
        let name = rule["alert"].as_str().unwrap();
        assert!(name.starts_with("Outrigger"), "{name}");
        let tier = rule["labels"]["tier"].as_str().unwrap();
        assert_eq!(group, format!("outrigger-{tier}"), "{name}");
        tiers.insert(tier);
        let severity = rule["labels"]["severity"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&severity), "{name}");
        for annotation in ["summary", "description"] {
            let text = rule["annotations"][annotation].as_str().unwrap();
            assert!(text.len() > 20, "{name}: {text}");
        }
    }
    assert_eq!(tiers, ["business", "infrastructure", "sidecar"].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_and_label_of_dashboard_and_alerts_is_told_by_a_live_sidecar() {
    let secured = Secured::shared();
    let topic = secured.kafka.topic("monitored", 1).await;
    let well = Sidecar::start(secured.kafka.bootstrap(), &[QUICK]);
    let mut wrong = secured.password("PLAIN", USER, "wrong");
    wrong.extend(settings(&[QUICK]));
    let refused = secured.sidecar("SASL", &wrong);
    let prometheus = Prometheus::start(&[&well, &refused]);

    // Some of everything: what succeeds, a record that fails, a stream that fails, a record that is rejected.
    let both = vec![record(&topic, "x"), record(&fresh("absent"), "x")];
    let mut publisher = well.publisher().await;
    publisher.publish(publish_request(both)).await.unwrap();
    let mut raw = Subscription::raw(&well).await;
    raw.send(proto::subscribe_request::Message::Ping(proto::Ping {
        id: 1,
    }))
    .await;
    assert!(raw.next().await.is_err(), "a stream that fails");
    let mut subscription = Subscription::open(&well, init(&fresh("g"), &[&topic], UNORDERED)).await;
    let deliveries = subscription.take(1).await;
    subscription
        .settle(&deliveries, Action::Nack(proto::Nack::default()))
        .await;
    let deliveries = subscription.take(1).await;
    subscription.ack(&deliveries).await;

    let (alerts, dashboard) = (asked_by_alerts(), asked_by_dashboard());
    assert!(alerts.len() > 15 && dashboard.len() > 50);
    let rules = alerts.len();
    let questions: Vec<_> = alerts.into_iter().chain(dashboard).collect();
    let asked = parsed(&questions);
    wait_until(|| {
        let missing = missing(&asked, &told(&[&well, &refused]));
        let text = || format!("told are not {missing:#?}");
        missing.is_empty().then_some(()).ok_or_else(text)
    });

    // What Prometheus itself makes of it. One after the other: what is there stays there.
    for question in questions.iter().filter(|question| question.is_shown) {
        let expression = &question.expression;
        wait_until(|| {
            let sample = prometheus.query(expression).pop();
            sample.ok_or_else(|| format!("no sample of {expression}"))
        });
    }
    wait_until(|| {
        let evaluated = prometheus.rules();
        let bad = evaluated.iter().find(|rule| rule["health"] == "err");
        assert!(bad.is_none(), "{bad:?}");
        let is_well = |rule: &Value| rule["health"] == "ok";
        let all = evaluated.len() == rules && evaluated.iter().all(is_well);
        all.then_some(())
            .ok_or_else(|| "not every rule was evaluated".into())
    });
    let mut lint = Command::new(tool("promtool"));
    lint.args(["check", "metrics"]);
    succeeded(&with_input(&mut lint, &well.get("/metrics").1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_is_an_alert_until_it_is_back_and_so_is_a_sidecar_that_is_gone() {
    let kafka = Kafka::start(1, &[]);
    let topic = kafka.topic("alerted", 1).await;
    let sidecar = Sidecar::start(kafka.bootstrap(), &[QUICK]);
    let admin = sidecar.admin;
    let prometheus = Prometheus::start(&[&sidecar]);
    let fires = |name: &str| {
        let alert = prometheus.firing(name, admin);
        alert.ok_or_else(|| format!("{name} does not fire"))
    };
    let is_quiet = |name: &str| match prometheus.firing(name, admin) {
        Some(alert) => Err(format!("it fires: {alert}")),
        None => Ok(()),
    };
    let request = publish_request(vec![record(&topic, "x")]);
    sidecar.publisher().await.publish(request).await.unwrap();
    wait_until(|| {
        let up = "outrigger_kafka_broker_connections{state=\"up\"} > 0";
        let sample = prometheus.query(up).pop();
        sample.ok_or_else(|| "no connection is seen".to_owned())
    });
    wait_until(|| is_quiet("OutriggerKafkaUnreachable"));

    kafka.tell("kill 1");
    let alert = wait_until(|| fires("OutriggerKafkaUnreachable"));
    assert_eq!(alert["labels"]["severity"], "critical");
    let summary = alert["annotations"]["summary"].as_str().unwrap();
    assert!(
        summary.contains(&admin.to_string()),
        "it says who: {summary}"
    );

    kafka.tell("start 1");
    wait_until(|| is_quiet("OutriggerKafkaUnreachable"));

    wait_until(|| is_quiet("OutriggerDown"));
    drop(sidecar);
    wait_until(|| fires("OutriggerDown"));
}
