//! Injection by example: texts that people write, what is refused, what is told, and what settings come to.

use yaml_rust2::Yaml;

use super::super::{
    rewrite::{Problem, Rewritten, documents, inject, uninject},
    sidecar::{Settings, Sidecar},
};

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: app\nspec:\n  containers:\n  - name: app\n    image: x\n";

fn injected(text: &str) -> Rewritten {
    inject(text, &Sidecar::library()).expect(text)
}

/// What is wrong with it, in words.
fn refused(text: &str) -> String {
    let problem: Problem = inject(text, &Sidecar::library()).expect_err(text);
    problem.to_string()
}

/// The spec of the only pod of the only document.
fn spec(text: &str) -> Yaml {
    documents(text).expect(text)[0]["spec"].clone()
}

fn names(list: &Yaml) -> Vec<&str> {
    let entries = list.as_vec().map_or(&[][..], |entries| entries);
    entries
        .iter()
        .map(|entry| entry["name"].as_str().unwrap_or("?"))
        .collect()
}

/// The value of a variable of a container.
fn variable<'a>(container: &'a Yaml, name: &str) -> Option<&'a str> {
    let env = container["env"].as_vec()?;
    env.iter()
        .find(|entry| entry["name"].as_str() == Some(name))?["value"]
        .as_str()
}

#[track_caller]
fn there_and_back(text: &str) -> String {
    let there = injected(text).text;
    assert_ne!(there, text);
    assert_eq!(injected(&there).text, there);
    assert_eq!(
        uninject(&there, &Sidecar::library()).expect(&there).text,
        text
    );
    there
}

#[test]
fn a_pod_gets_what_the_library_has_and_nothing_else_moves() {
    let text = injected(POD).text;
    assert!(text.starts_with(POD), "{text}");
    let spec = spec(&text);
    assert_eq!(names(&spec["initContainers"]), ["outrigger"]);
    assert_eq!(
        names(&spec["volumes"]),
        ["outrigger-socket", "outrigger-config"]
    );
    let app = &spec["containers"][0];
    assert_eq!(variable(app, "OUTRIGGER_ADDRESS"), Some("127.0.0.1:7420"));
    assert_eq!(
        variable(app, "OUTRIGGER_SOCKET"),
        Some("unix:///run/outrigger/outrigger.sock")
    );
    assert_eq!(names(&app["volumeMounts"]), ["outrigger-socket"]);
}

#[test]
fn texts_that_people_write_come_back_to_the_byte() {
    for text in [
        POD.to_owned(),
        POD.replace('\n', "\r\n"),
        POD.trim_end().to_owned(),
        POD.trim_end().replace('\n', "\r\n"),
        format!("\u{feff}{POD}"),
        format!("# head\n---\n{POD}...\n# tail\n"),
        format!("{POD}    env:\n"),
        format!("{POD}    env:"),
        format!("{POD}    env: ~ # none\n  volumes: []"),
        format!("{POD}    args: [\n      a,\n      b ]\n    # the end of the container\n\n  # the end of the pod\n"),
        format!("{POD}    command:\n    - |+\n      one\n      # no comment\n\n\n"),
        format!("{POD}    command: [sh]\n    args:\n    - >-\n      one\n      two\n  volumes:\n  - name: data\n    emptyDir: {{}}\n"),
        format!("{POD}    image2: two\n      lines\n\n      more\n"),
        format!("{POD}    env:\n    # - name: A\n    - name: B\n      value: '# c'\n    # the last\n    tty: true\n"),
        format!("{POD}  initContainers:\n  # first of all\n  - name: migrate\n"),
        format!("x: &a {{b: c}}\ny: *a\n---\n{POD}"),
        "kind: Pod\nspec: {containers: [{name: a, image: 'x' }, ] }\n".to_owned(),
        "kind: Pod\nspec:\n    containers: [ { name: a, env: [ ] } ]\n    volumes: [ { name: b } ] # c\n".to_owned(),
        "kind: List\nitems:\n- kind: Pod\n  spec:\n    containers:\n    - name: a\n    - {name: b}\n".to_owned(),
        "kind: Pod\nspec:\n   containers:\n     -\n        name: a\n     -   # second\n         name: b\n".to_owned(),
    ] {
        there_and_back(&text);
    }
}

#[test]
fn comments_stay_with_what_they_are_about() {
    let text = format!(
        "{POD}    env:\n    - name: A\n      # about A\n    # about the image\n    other: x\n    # the end of app\n  # the end of the spec\nstatus: {{}}\n"
    );
    let there = there_and_back(&text);
    let lines: Vec<&str> = there.lines().map(str::trim).collect();
    let next = |line: &str| lines[lines.iter().position(|own| *own == line).expect(line) + 1];
    assert_eq!(next("# about A"), "- name: OUTRIGGER_ADDRESS");
    assert_eq!(next("# about the image"), "other: x");
    assert_eq!(next("# the end of app"), "volumeMounts:");
    assert_eq!(next("# the end of the spec"), "volumes:");
    assert_eq!(lines.last(), Some(&"status: {}"));
}

#[test]
fn an_env_entry_of_the_users_own_that_is_just_like_ours_stays_in_its_place() {
    let text = format!(
        "{POD}    env:\n    - name: OUTRIGGER_ADDRESS # fixed\n      value: 127.0.0.1:7420\n    - name: A\n"
    );
    let there = injected(&text).text;
    assert!(there.starts_with(&text), "{there}");
    assert_eq!(injected(&there).text, there);
}

#[test]
fn new_lines_are_indented_and_ended_as_those_around_them() {
    let there = injected(&POD.replace('\n', "\r\n")).text;
    assert_eq!(there.matches('\n').count(), there.matches("\r\n").count());
    assert!(injected(POD).text.contains(
        "\n  volumes:\n  - name: outrigger-socket\n    emptyDir:\n      medium: Memory\n"
    ));
    let wide = "kind: Pod\nspec:\n    containers:\n       - name: a\n";
    assert!(injected(wide).text.contains("\n    volumes:\n       - name: outrigger-socket\n         emptyDir:\n             medium: Memory\n"));
}

#[test]
fn json_stays_json_in_one_line_and_in_many() {
    let compact = r#"{"kind":"Pod","spec":{"containers":[{"name":"a","env":[]},{"name":"b"}],"volumes":[{"name":"data"}]}}"#;
    let value: serde_json::Value = serde_json::from_str(compact).unwrap();
    for text in [
        compact.to_owned(),
        serde_json::to_string_pretty(&value).unwrap(),
    ] {
        let there = there_and_back(&text);
        // As another program prints it: sorted, so that what is ours stands anywhere.
        let value: serde_json::Value = serde_json::from_str(&there).expect(&there);
        for printed in [
            serde_json::to_string_pretty(&value).unwrap(),
            value.to_string(),
        ] {
            let back = uninject(&printed, &Sidecar::library())
                .expect(&printed)
                .text;
            let back: serde_json::Value = serde_json::from_str(&back).expect(&back);
            // Whose the empty list was is known no more.
            let printed = back.to_string().replace(r#""env":[],"#, "");
            assert_eq!(
                printed,
                r#"{"kind":"Pod","spec":{"containers":[{"name":"a"},{"name":"b"}],"volumes":[{"name":"data"}]}}"#
            );
        }
    }
}

#[test]
fn it_is_taken_out_of_what_kubectl_prints_too() {
    // Keys sorted, so that ours is the first behind a dash.
    let printed = "kind: Pod\nspec:\n  containers:\n  - env:\n    - name: OUTRIGGER_ADDRESS\n      value: 127.0.0.1:7420\n    - name: OUTRIGGER_SOCKET\n      value: unix:///run/outrigger/outrigger.sock\n    image: x\n    name: app\n    volumeMounts:\n    - mountPath: /data\n      name: data\n    - mountPath: /run/outrigger\n      name: outrigger-socket\n  initContainers:\n  - args:\n    - serve\n    name: outrigger\n    restartPolicy: Always\n  - image: x\n    name: own\n  volumes:\n  - emptyDir: {}\n    name: data\n  - emptyDir:\n      medium: Memory\n    name: outrigger-socket\n";
    let left = "kind: Pod\nspec:\n  containers:\n  - image: x\n    name: app\n    volumeMounts:\n    - mountPath: /data\n      name: data\n  initContainers:\n  - image: x\n    name: own\n  volumes:\n  - emptyDir: {}\n    name: data\n";
    assert_eq!(uninject(printed, &Sidecar::library()).unwrap().text, left);
}

#[test]
fn what_a_container_says_itself_stays() {
    let text = format!(
        "{POD}    env:\n    - name: OUTRIGGER_ADDRESS\n      value: mine\n    volumeMounts:\n    - name: outrigger-socket\n      mountPath: /run/outrigger\n      readOnly: true\n"
    );
    let app = &spec(&there_and_back(&text))["containers"][0];
    assert_eq!(
        names(&app["env"]),
        ["OUTRIGGER_ADDRESS", "OUTRIGGER_SOCKET"]
    );
    assert_eq!(variable(app, "OUTRIGGER_ADDRESS"), Some("mine"));
    assert_eq!(names(&app["volumeMounts"]), ["outrigger-socket"]);
    assert_eq!(app["volumeMounts"][0]["readOnly"].as_bool(), Some(true));
}

#[test]
fn what_cannot_be_edited_is_refused_with_its_line() {
    let shared = "x: &env\n- name: A\n";
    for (text, says) in [
        (format!("{POD}    env: *env\n{shared}"), "not YAML"),
        (
            format!("{shared}{POD}    env: *env\n"),
            "line 11: an alias (*name) cannot be added to",
        ),
        (
            format!("x: &c {{tty: true}}\n{POD}    <<: *c\n"),
            "line 10: a merge key (<<) cannot be added to",
        ),
        (
            format!("{POD}    env: &env\n    - name: A\nother: *env\n"),
            "Pod/app: changing this text did not give",
        ),
        (
            "kind: Pod\nspec: {containers: [{name: a, env: null}]}\n".to_owned(),
            "line 2: a null cannot be added to here",
        ),
        (
            format!("{POD}    env: mine\n"),
            "line 9: this should be a list",
        ),
        (
            format!("{POD}    env:\n      name: A\n"),
            "line 10: this should be a list",
        ),
        (format!("{POD}    env: [\n"), "not YAML"),
        (format!("{POD}---\n{{{{- if .Values.x }}}}\n"), "not YAML"),
        (format!("{POD}    image: twice\n"), "duplicated key"),
    ] {
        let said = refused(&text);
        assert!(said.contains(says), "{text}: {said}");
    }
}

#[test]
fn pods_that_cannot_have_it_are_left_alone_for_the_policys_reasons() {
    let policy = include_str!("../../../../deploy/kubernetes/injector.yaml");
    let mount = "    volumeMounts:\n    - name: data\n      mountPath: ";
    for text in [
        format!("{POD}  hostNetwork: true\n"),
        POD.replace(
            "  name: app\nspec",
            "  annotations: {kubernetes.io/config.mirror: x}\nspec",
        ),
        format!("{POD}  os: {{name: windows}}\n"),
        format!("{POD}  - name: outrigger\n"),
        format!("{POD}  initContainers: [{{name: outrigger}}]\n"),
        format!("{POD}  volumes: [{{name: outrigger-socket}}]\n"),
        format!("{POD}  volumes: [{{name: outrigger-config}}]\n"),
        format!("{POD}{mount}/run/outrigger\n"),
        format!("{POD}{mount}/run/outrigger/\n"),
        format!("{POD}  initContainers:\n  - name: own\n{mount}/run/outrigger\n"),
    ] {
        let left = injected(&text);
        assert_eq!(left.text, text);
        let [note] = &left.notes[..] else {
            panic!("{text}: {:?}", left.notes)
        };
        let (_, reason) = note.split_once(": left alone, because ").expect(note);
        let message = format!("this pod did not get the sidecar, because {reason}\"");
        assert!(policy.contains(&message), "{text}: {reason}");
    }
}

#[test]
fn everything_else_passes_through_and_is_told() {
    for (text, says) in [
        (
            "kind: Service\nmetadata: {name: web}\n",
            "Service/web: left alone, because its kind has no pods",
        ),
        (
            "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nmetadata: {name: x}\nspec: {template: {spec: {containers: [{name: a}]}}}\n",
            "Job/x: left alone",
        ),
        (
            "kind: Deployment\nmetadata: {name: x}\nspec: {}\n",
            "it has no containers",
        ),
        (
            "kind: Pod\nmetadata: {labels: {outrigger.io/inject: 'false'}}\nspec: {containers: [{name: a}]}\n",
            "its label outrigger.io/inject says false",
        ),
    ] {
        let left = injected(text);
        assert_eq!(left.text, text);
        assert!(
            left.notes.len() == 1 && left.notes[0].contains(says),
            "{:?}",
            left.notes
        );
    }
    for text in [
        "",
        "# nothing\n",
        "---\n---\n",
        "- a\n- kind: Pod\n",
        "just text\n",
        "null\n",
    ] {
        let left = injected(text);
        assert_eq!((left.text.as_str(), left.notes.len()), (text, 0), "{text}");
    }
}

#[test]
fn labels_and_annotations_in_the_wrong_place_are_told() {
    let deployment = |workload: &str, template: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n{workload}spec:\n  template:\n    metadata:\n      name: web\n{template}    spec:\n      containers: [{{name: a}}]\n"
        )
    };
    let label = "  labels: {outrigger.io/inject: 'true'}\n";
    let inner = "      labels: {outrigger.io/inject: 'true'}\n";
    for (text, says) in [
        (
            deployment(label, ""),
            "the label outrigger.io/inject does nothing here; it belongs to the pod template (spec.template.metadata.labels)",
        ),
        (
            deployment("  annotations: {outrigger.io/inject: 'true'}\n", ""),
            "the annotation outrigger.io/inject does nothing here; it belongs to the pod template (spec.template.metadata.labels)",
        ),
        (
            deployment("  annotations: {config.outrigger.io/image: x}\n", ""),
            "the annotation config.outrigger.io/image does nothing here; it belongs to the pod template (spec.template.metadata.annotations)",
        ),
        (
            deployment(
                "",
                "      annotations: {config.outrigger.io/listen.tcp: x}\n",
            ),
            "a pod cannot set listen.tcp by annotation, and it is ignored",
        ),
    ] {
        let notes = injected(&text).notes;
        assert_eq!(
            notes,
            [
                format!("Deployment/web: warning: {says}"),
                "Deployment/web: injected".to_owned()
            ]
        );
    }
    assert_eq!(
        injected(&deployment(label, inner)).notes,
        ["Deployment/web: injected"]
    );
    assert!(
        injected(&deployment(label, inner)).text.contains(inner),
        "the label is left as it is"
    );
}

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn settings_of_the_command_line_stand_where_the_library_has_them() {
    let set = settings(&[
        ("image", "mirror.example/o@sha256:ab"),
        ("kafka.bootstrap_servers", "kafka:9092"),
        ("log.level", "debug"),
        ("config-map", "mine"),
        ("secret", "credentials"),
        ("memory-limit", "1Gi"),
        ("cpu-limit", "2"),
        ("memory-request", ""),
    ]);
    let env =
        [("OTEL_SERVICE_NAME", "orders"), ("X", "1")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    let sidecar = Sidecar::library().configured(&set, &env);
    let text = inject(POD, &sidecar).unwrap().text;
    let spec = spec(&text);
    let container = &spec["initContainers"][0];
    assert_eq!(
        container["image"].as_str(),
        Some("mirror.example/o@sha256:ab")
    );
    let env = names(&container["env"]);
    let at = |name: &str| env.iter().position(|own| *own == name).expect(name);
    assert_eq!(
        at("OUTRIGGER_ADMIN__LISTEN") + 1,
        at("OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS")
    );
    assert_eq!(at("OUTRIGGER_LOG__LEVEL") + 1, at("POD_NAME"));
    assert_eq!(at("X") + 1, env.len());
    assert_eq!(variable(container, "OTEL_SERVICE_NAME"), Some("orders"));
    let resources = &container["resources"];
    assert_eq!(resources["limits"]["memory"].as_str(), Some("1Gi"));
    assert_eq!(
        resources["limits"]["cpu"].as_str(),
        Some("2"),
        "a quantity is a text"
    );
    assert!(resources["requests"]["memory"].is_badvalue());
    let sources = &spec["volumes"][1]["projected"]["sources"];
    assert_eq!(sources[0]["configMap"]["name"].as_str(), Some("mine"));
    assert_eq!(sources[1]["secret"]["name"].as_str(), Some("credentials"));
}

#[test]
fn annotations_of_the_pod_come_before_the_command_line() {
    let text = POD.replace(
        "  name: app\nspec",
        "  annotations:\n    config.outrigger.io/image: theirs\n    config.outrigger.io/log.level: trace\nspec",
    );
    let set = settings(&[
        ("image", "ours"),
        ("log.level", "debug"),
        ("log.format", "text"),
    ]);
    let sidecar = Sidecar::library().configured(&set, &[]);
    let spec = spec(&inject(&text, &sidecar).unwrap().text);
    let container = &spec["initContainers"][0];
    assert_eq!(container["image"].as_str(), Some("theirs"));
    assert_eq!(variable(container, "OUTRIGGER_LOG__FORMAT"), Some("text"));
    assert_eq!(
        names(&container["env"]).last(),
        Some(&"OUTRIGGER_LOG__LEVEL"),
        "once, and as the policy has it"
    );
    assert_eq!(variable(container, "OUTRIGGER_LOG__LEVEL"), Some("trace"));
}

#[test]
fn a_value_that_yaml_would_take_for_something_else_stays_a_text() {
    for value in [
        "yes", "0777", "1:20", "- x", "a: b", "a #b", "null", "~", "\"", "é\n\t", "*a", "1e3", "",
        "@x", "{a}", "on",
    ] {
        for pod in [
            POD.to_owned(),
            "kind: Pod\nspec: {containers: [{name: a}]}\n".to_owned(),
        ] {
            let sidecar = Sidecar::library()
                .configured(&Settings::new(), &[("X".to_owned(), value.to_owned())]);
            let spec = spec(&inject(&pod, &sidecar).unwrap().text);
            assert_eq!(variable(&spec["initContainers"][0], "X"), Some(value));
        }
    }
    let text = inject(
        POD,
        &Sidecar::library().configured(&settings(&[("image", "yes")]), &[]),
    )
    .unwrap()
    .text;
    assert!(
        text.contains("image: \"yes\""),
        "YAML 1.1 has more words for true and false: {text}"
    );
}
