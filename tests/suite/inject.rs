//! `outrigger inject` and `outrigger uninject` as a black box: what comes out, what is told, how they exit. No Kafka is needed.

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use yaml_rust2::{Yaml, YamlLoader};

fn outrigger(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // A command may end without reading all of it.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Standard output of a command that must succeed, and the lines of standard error.
#[track_caller]
fn done(arguments: &[&str], input: &str) -> (String, Vec<String>) {
    let output = outrigger(arguments, input);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    (
        text(&output.stdout),
        said.lines().map(str::to_owned).collect(),
    )
}

fn documents(text: &str) -> Vec<Yaml> {
    YamlLoader::load_from_str(text).expect(text)
}

/// What the library chart gives a pod.
fn sidecar() -> Yaml {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes/sidecar.yaml");
    documents(&fs::read_to_string(path).unwrap()).remove(0)
}

fn workload(api: &str, kind: &str, way: &[&str]) -> String {
    let mut text = format!("apiVersion: {api}\nkind: {kind}\nmetadata:\n  name: {kind}\n");
    let mut indent = 0;
    for key in way.iter().chain(&["spec"]) {
        text += &format!("{:indent$}{key}:\n", "");
        indent += 2;
    }
    for line in [
        "# how it runs",
        "restartPolicy: Always",
        "initContainers:",
        "- name: migrate # first",
        "  image: registry.example/migrate:1",
        "containers:",
        "- name: app",
        "  image: 'registry.example/app:1'",
        "- name: helper",
        "  image: registry.example/helper:1",
        "  env: []",
    ] {
        text += &format!("{:indent$}{line}\n", "");
    }
    text
}

const KINDS: [(&str, &str, &[&str]); 6] = [
    ("v1", "Pod", &[]),
    ("apps/v1", "Deployment", &["spec", "template"]),
    ("apps/v1", "StatefulSet", &["spec", "template"]),
    ("apps/v1", "DaemonSet", &["spec", "template"]),
    ("batch/v1", "Job", &["spec", "template"]),
    (
        "batch/v1",
        "CronJob",
        &["spec", "jobTemplate", "spec", "template"],
    ),
];

#[track_caller]
fn assert_injected(spec: &Yaml) {
    let sidecar = sidecar();
    let list = |value: &Yaml| value.as_vec().cloned().unwrap_or_default();
    let init = list(&spec["initContainers"]);
    assert_eq!(
        init[0], sidecar["container"],
        "the library's, field by field"
    );
    assert_eq!(spec["volumes"], sidecar["volumes"]);
    let others: Vec<Yaml> = init[1..]
        .iter()
        .cloned()
        .chain(list(&spec["containers"]))
        .collect();
    assert_eq!(others.len(), 3);
    for container in others {
        assert_eq!(container["env"], sidecar["env"]);
        assert_eq!(container["volumeMounts"], sidecar["volumeMounts"]);
    }
}

#[test]
fn every_kind_of_workload_gets_the_librarys_container_and_gives_it_back() {
    let workloads: Vec<String> = KINDS
        .iter()
        .map(|(api, kind, way)| workload(api, kind, way))
        .collect();
    let service = "# its door\napiVersion: v1\nkind: Service\nmetadata: {name: app}\n";
    let stream = format!("{}---\n{service}", workloads.join("---\n"));
    let (injected, said) = done(&["inject"], &stream);
    let objects = documents(&injected);
    assert_eq!(objects.len(), KINDS.len() + 1);
    for (object, (_, _, way)) in objects.iter().zip(KINDS) {
        let pod = way.iter().fold(object, |object, key| &object[*key]);
        assert_injected(&pod["spec"]);
    }
    assert!(injected.ends_with(service));
    let mut expected: Vec<String> = KINDS
        .iter()
        .map(|(_, kind, _)| format!("outrigger: {kind}/{kind}: injected"))
        .collect();
    expected.push(
        "outrigger: Service/app: left alone, because its kind has no pods that can be injected"
            .to_owned(),
    );
    assert_eq!(said, expected);

    assert_eq!(
        done(&["inject", "-"], &injected).0,
        injected,
        "once is enough"
    );
    let (back, said) = done(&["uninject"], &injected);
    assert_eq!(back, stream, "every byte is as it was");
    assert_eq!(said[0], "outrigger: Pod/Pod: the sidecar was taken out");
    assert_eq!(
        said[6],
        "outrigger: Service/app: left alone, because it has no sidecar"
    );
}

#[test]
fn a_list_in_yaml_or_json_is_injected_item_by_item() {
    let (pod, deployment) = (
        workload("v1", "Pod", &[]),
        workload("apps/v1", "Deployment", &["spec", "template"]),
    );
    let item = |text: &str| format!("- {}\n", text.trim_end().replace('\n', "\n  "));
    let list = format!(
        "apiVersion: v1\nkind: List\nitems:\n{}{}",
        item(&pod),
        item(&deployment)
    );
    let (injected, said) = done(&["inject"], &list);
    assert_eq!(said.len(), 2);
    let items = &documents(&injected)[0]["items"];
    assert_injected(&items[0]["spec"]);
    assert_injected(&items[1]["spec"]["template"]["spec"]);

    let json = r#"{"kind": "List", "items": [{"kind": "Pod", "spec": {"containers": [{"name": "app"}]}}]}"#;
    let (injected, _) = done(&["inject"], json);
    let value: serde_json::Value = serde_json::from_str(&injected).expect("JSON stays JSON");
    let first = &value["items"][0]["spec"]["initContainers"][0];
    assert_eq!(first["securityContext"]["runAsUser"], 65532);
    assert_eq!(done(&["uninject"], &injected).0, json);
}

#[test]
fn several_files_become_one_stream_and_standard_input_is_one_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let pod = workload("v1", "Pod", &[]);
    fs::write(path("a.yaml"), pod.trim_end()).unwrap();
    fs::write(path("b.yaml"), format!("---\n{pod}")).unwrap();
    let (injected, said) = done(&["inject", &path("a.yaml"), "-", &path("b.yaml")], &pod);
    assert_eq!(said.len(), 3);
    let objects = documents(&injected);
    assert_eq!(objects.len(), 3);
    objects
        .iter()
        .for_each(|object| assert_injected(&object["spec"]));
    let (alone, _) = done(&["inject", &path("a.yaml")], "");
    assert_eq!(
        done(&["uninject"], &alone).0,
        pod.trim_end(),
        "no line end was added to the last line"
    );
}

#[test]
fn options_replace_those_of_the_last_time() {
    let pod = workload("v1", "Pod", &[]);
    let (first, _) = done(
        &["inject", "--image", "old:1", "--set", "log.level=debug"],
        &pod,
    );
    assert!(
        first.contains("image: \"old:1\"") || first.contains("image: old:1"),
        "{first}"
    );
    let options = [
        "inject",
        "--image",
        "mirror.example/outrigger:2",
        "--bootstrap-servers",
        "kafka-0:9092,kafka-1:9092",
        "--config-map",
        "mine",
        "--set",
        "secret=credentials",
        "--set",
        "memory-limit=512Mi",
        "--env",
        "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4317",
    ];
    let (second, said) = done(&options, &first);
    assert_eq!(
        said,
        ["outrigger: Pod/Pod: injected, in the place of the sidecar it had"]
    );
    assert_eq!(second, done(&options, &pod).0);
    let spec = &documents(&second)[0]["spec"];
    let container = &spec["initContainers"][0];
    assert_eq!(
        container["image"].as_str(),
        Some("mirror.example/outrigger:2")
    );
    assert_eq!(
        container["resources"]["limits"]["memory"].as_str(),
        Some("512Mi")
    );
    let env: Vec<(&str, &str)> = container["env"]
        .as_vec()
        .unwrap()
        .iter()
        .map(|entry| {
            (
                entry["name"].as_str().unwrap(),
                entry["value"].as_str().unwrap_or("-"),
            )
        })
        .collect();
    assert!(env.contains(&(
        "OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS",
        "kafka-0:9092,kafka-1:9092"
    )));
    assert!(env.contains(&("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317")));
    assert!(!env.iter().any(|(name, _)| *name == "OUTRIGGER_LOG__LEVEL"));
    let sources = &spec["volumes"][1]["projected"]["sources"];
    assert_eq!(sources[0]["configMap"]["name"].as_str(), Some("mine"));
    assert_eq!(sources[1]["secret"]["name"].as_str(), Some("credentials"));
}

#[test]
fn what_cannot_be_changed_is_an_error_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let good = directory.path().join("good.yaml").display().to_string();
    fs::write(&good, workload("v1", "Pod", &[])).unwrap();
    for (input, says) in [
        ("kind: Pod\nspec: [\n", "standard input: line "),
        (
            "x: &e\n- name: A\nkind: Pod\nspec:\n  containers:\n  - name: a\n    env: *e\n",
            "standard input: line 7: an alias (*name) cannot be added to; write out what it stands for",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: a, env: null}]}\n",
            "leave the key out, or write []",
        ),
    ] {
        let output = outrigger(&["inject", &good, "-"], input);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(text(&output.stdout), "");
        let said = text(&output.stderr);
        assert!(
            said.contains(says) && said.ends_with("; nothing was written\n"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    let missing = directory.path().join("missing.yaml").display().to_string();
    for command in ["inject", "uninject"] {
        let output = outrigger(&[command, &missing], "");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains("missing.yaml: No such file"));
    }
}

#[test]
fn settings_that_an_injected_sidecar_cannot_have_are_a_wrong_command_line() {
    for (options, says) in [
        (
            ["--set", "kafka.bootstrapservers=x"],
            "did you mean kafka.bootstrap_servers?",
        ),
        (["--set", "drain.deadline=5"], "has no unit"),
        (
            ["--set", "listen.tcp=0.0.0.0:1"],
            "no setting of an injected sidecar",
        ),
        (["--set", "imagee=x"], "there is no such setting"),
        (["--env", "OUTRIGGER_LOG__LEVEL=debug"], "use --set"),
        (["--set", "novalue"], "expected KEY=VALUE"),
        (["--image", ""], "not empty"),
    ] {
        let output = outrigger(
            &["inject", options[0], options[1]],
            &workload("v1", "Pod", &[]),
        );
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert_eq!(text(&output.stdout), "");
        assert!(
            text(&output.stderr).contains(says),
            "{}",
            text(&output.stderr)
        );
    }
    // What it needs beside it may be in the ConfigMap.
    done(
        &["inject", "--set", "kafka.tls.ca_file=/etc/outrigger/ca.crt"],
        &workload("v1", "Pod", &[]),
    );
}
