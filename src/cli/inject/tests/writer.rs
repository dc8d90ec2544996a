//! Manifests as different people and programs write them: a stream of choices decides on content, order, indentation, quotes, comments and brackets.

use yaml_rust2::{Yaml, yaml::Hash};

/// Makes choices, and writes what they come to.
pub(super) struct Writer {
    choices: Vec<u8>,
    next: usize,
    out: String,
    end: &'static str,
    map: usize,
    list: usize,
}

impl Writer {
    pub(super) fn new(choices: Vec<u8>) -> Self {
        let mut writer = Self {
            choices,
            next: 0,
            out: String::new(),
            end: "\n",
            map: 2,
            list: 2,
        };
        writer.end = writer.pick(&["\n", "\n", "\r\n"]);
        writer.map = writer.pick(&[2, 2, 4, 1, 3]);
        writer.list = writer.pick(&[2, 0, 0, 4, 1]);
        writer
    }

    /// One of several; the first when there are no more choices.
    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let choice = self.choices.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        among[usize::from(choice) % among.len()]
    }

    fn one_in(&mut self, many: usize) -> bool {
        let choice = self.choices.get(self.next).copied().unwrap_or(0);
        self.next += 1;
        choice > 0 && usize::from(choice) % many == 0
    }

    /// Writes one of several.
    fn put(&mut self, among: &[&str]) {
        let text = self.pick(among);
        self.out += text;
    }

    /// Nothing, or comments and blank lines.
    fn between(&mut self, column: usize) {
        while self.one_in(7) {
            let text = self.pick(&["", "# a comment", "# - name: not me", "  ", "#env: []"]);
            let column = match text.starts_with('#') {
                true => self.pick(&[column, 0, column + 2, column.saturating_sub(1)]),
                false => 0,
            };
            self.out += &format!("{:column$}{text}{}", "", self.end);
        }
    }

    fn end_line(&mut self) {
        self.put(&["", "", "", "", " # why", "  "]);
        self.out += self.end;
    }

    fn key(&mut self, key: &Yaml) {
        let text = key.as_str().unwrap();
        let written = match self.pick(&[0, 0, 0, 0, 0, 0, 1, 2]) {
            1 => format!("\"{text}\":"),
            2 => format!("'{text}':"),
            _ => format!("{text}:"),
        };
        self.out += &written;
    }

    /// A map in block style, from where its first key goes.
    fn block(&mut self, map: &Hash, column: usize) {
        for (index, (key, value)) in map.iter().enumerate() {
            if index > 0 {
                self.between(column);
                self.out += &" ".repeat(column);
            }
            self.key(key);
            match value {
                Yaml::Hash(inner) if !inner.is_empty() && !self.one_in(6) => {
                    self.end_line();
                    let column = column + self.map;
                    self.between(column);
                    self.out += &" ".repeat(column);
                    self.block(inner, column);
                }
                Yaml::Array(items) if !items.is_empty() && !self.one_in(6) => {
                    self.end_line();
                    self.items(items, column + self.list);
                }
                Yaml::Null => {
                    self.put(&["", " ~", " null"]);
                    self.end_line();
                }
                Yaml::String(text) if text.contains('\n') && !self.one_in(3) => {
                    self.literal(text, column);
                }
                _ => {
                    self.out += " ";
                    let wide = self.one_in(3).then_some(column + 2);
                    self.flow(value, wide);
                    self.end_line();
                }
            }
        }
    }

    fn items(&mut self, items: &[Yaml], column: usize) {
        for item in items {
            self.between(column);
            self.out += &" ".repeat(column);
            match item {
                Yaml::Hash(map) if !self.one_in(6) => {
                    let dash = self.pick(&["- ", "- ", "- ", "-   ", "-"]);
                    self.out += dash;
                    let inner = match dash {
                        "-" => {
                            self.out += self.end;
                            let inner = column + 1 + self.map;
                            self.out += &" ".repeat(inner);
                            inner
                        }
                        dash => column + dash.len(),
                    };
                    self.block(map, inner);
                }
                Yaml::String(text) if text.contains('\n') && !self.one_in(3) => {
                    self.out += "-";
                    self.literal(text, column);
                }
                _ => {
                    self.out += "- ";
                    let wide = self.one_in(3).then_some(column + 2);
                    self.flow(item, wide);
                    self.end_line();
                }
            }
        }
    }

    fn literal(&mut self, text: &str, parent: usize) {
        self.put(&[" |", " |-", " |+", " >"]);
        self.end_line();
        let column = parent + self.pick(&[2, 1, 4]);
        for line in text.lines() {
            match line.is_empty() {
                true => {}
                false => self.out += &format!("{:column$}{line}", ""),
            }
            self.out += self.end;
        }
    }

    /// In brackets; on lines of this indentation, or on one.
    fn flow(&mut self, value: &Yaml, wide: Option<usize>) {
        let gap = match wide {
            Some(column) => format!("{}{:column$}", self.end, ""),
            None => self.pick(&["", "", " "]).to_owned(),
        };
        let mut comma = "";
        match value {
            Yaml::Hash(map) => {
                self.out += "{";
                for (key, value) in map {
                    if value.is_null() {
                        // Which is refused.
                        continue;
                    }
                    self.out += comma;
                    self.out += &gap;
                    comma = self.pick(&[", ", ",", " , "]);
                    self.key(key);
                    self.out += " ";
                    self.flow(value, wide);
                }
                self.out += &gap;
                self.out += "}";
            }
            Yaml::Array(items) => {
                self.out += "[";
                for item in items {
                    self.out += comma;
                    self.out += &gap;
                    comma = self.pick(&[", ", ",", " , "]);
                    self.flow(item, wide);
                }
                self.out += &gap;
                self.out += "]";
            }
            Yaml::String(text) => {
                let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric());
                let written = match self.pick(&[0, 1, 2]) {
                    0 if is_plain => text.clone(),
                    1 if !text.contains('\n') => format!("'{}'", text.replace('\'', "''")),
                    _ => serde_json::to_string(text).unwrap(),
                };
                self.out += &written;
            }
            Yaml::Boolean(value) => self.out += &value.to_string(),
            Yaml::Integer(number) => self.out += &number.to_string(),
            other => panic!("{other:?} is not written"),
        }
    }
}

/// A stream of workloads and other objects.
pub(super) fn workloads(writer: &mut Writer) -> String {
    if writer.one_in(9) {
        writer.out += "\u{feff}";
    }
    let count = writer.pick(&[1, 1, 2, 3]);
    for index in 0..count {
        if index > 0 || writer.one_in(2) {
            writer.put(&["---", "--- # next", "---  "]);
            writer.out += writer.end;
            writer.between(0);
        }
        let object = match writer.pick(&[0, 0, 0, 1, 2]) {
            1 => {
                let items = (0..writer.pick(&[1, 2, 0]))
                    .map(|_| workload(writer))
                    .collect();
                map([
                    ("apiVersion", string("v1")),
                    ("kind", string("List")),
                    ("items", Yaml::Array(items)),
                ])
            }
            2 => map([
                ("kind", string("ConfigMap")),
                ("data", map([("a", string("x\n# y\n\n"))])),
                ("none", Yaml::Null),
            ]),
            _ => workload(writer),
        };
        let Yaml::Hash(map) = &object else {
            panic!("an object is a map")
        };
        if writer.one_in(6) {
            let wide = writer.one_in(2).then_some(2);
            writer.flow(&object, wide);
            writer.end_line();
        } else {
            writer.block(map, 0);
        }
        if writer.one_in(8) {
            writer.out += "...";
            writer.out += writer.end;
        }
    }
    writer.between(0);
    let mut text = std::mem::take(&mut writer.out);
    if writer.one_in(5) {
        let end = text.trim_end_matches(['\r', '\n']).len();
        text.truncate(end);
    }
    text
}

fn workload(writer: &mut Writer) -> Yaml {
    let (group, kind) = writer.pick(&[
        ("apps/v1", "Deployment"),
        ("v1", "Pod"),
        ("batch/v1", "CronJob"),
        ("batch/v1", "Job"),
        ("apps/v1", "StatefulSet"),
        ("apps/v1", "DaemonSet"),
    ]);
    let name = writer.pick(&["web", "örders"]);
    let mut spec = vec![(
        "containers",
        Yaml::Array(
            (0..writer.pick(&[1, 2, 3]))
                .map(|_| container(writer))
                .collect(),
        ),
    )];
    maybe(writer, &mut spec, "initContainers", container);
    maybe(writer, &mut spec, "volumes", |writer| {
        map([
            ("name", string(writer.pick(&["data", "more"]))),
            ("emptyDir", map([])),
        ])
    });
    if writer.one_in(4) {
        spec.push(("hostNetwork", Yaml::Boolean(writer.one_in(3))));
    }
    let spec = shuffled(writer, spec);
    let metadata = map([
        ("name", string(name)),
        ("labels", map([("app", string(name))])),
    ]);
    let template = map([("metadata", metadata.clone()), ("spec", spec.clone())]);
    let spec = match kind {
        "Pod" => spec,
        "CronJob" => map([(
            "jobTemplate",
            map([("spec", map([("template", template)]))]),
        )]),
        _ => map([("template", template), ("paused", Yaml::Boolean(false))]),
    };
    shuffled(
        writer,
        vec![
            ("apiVersion", string(group)),
            ("kind", string(kind)),
            ("metadata", metadata),
            ("spec", spec),
        ],
    )
}

fn container(writer: &mut Writer) -> Yaml {
    let mut keys = vec![
        ("name", string(writer.pick(&["app", "web"]))),
        ("image", string("registry.example/app:1")),
    ];
    maybe(writer, &mut keys, "env", |writer| {
        let name = writer.pick(&["A", "B", "OUTRIGGER_ADDRESS"]);
        let value = writer.pick(&["x", "127.0.0.1:1", "two\n# lines\n", "it's", "yes"]);
        map([("name", string(name)), ("value", string(value))])
    });
    maybe(writer, &mut keys, "volumeMounts", |_| {
        map([("mountPath", string("/data")), ("name", string("data"))])
    });
    maybe(writer, &mut keys, "args", |writer| {
        string(writer.pick(&[
            "serve",
            "sh -c",
            "one\n\n  # two\n\n\n",
            "a: b # c",
            "- x",
            "é",
        ]))
    });
    if writer.one_in(3) {
        keys.push(("tty", Yaml::Null));
    }
    shuffled(writer, keys)
}

/// A list that is not there, null, empty, or has something.
fn maybe(
    writer: &mut Writer,
    keys: &mut Vec<(&'static str, Yaml)>,
    key: &'static str,
    mut item: impl FnMut(&mut Writer) -> Yaml,
) {
    let list = match writer.pick(&[0, 1, 2, 3, 4]) {
        0 => return,
        1 => Yaml::Null,
        2 => Yaml::Array(vec![]),
        count => Yaml::Array((2..count).map(|_| item(writer)).collect()),
    };
    keys.push((key, list));
}

fn shuffled(writer: &mut Writer, mut keys: Vec<(&'static str, Yaml)>) -> Yaml {
    let mut map = Hash::new();
    while !keys.is_empty() {
        let index = writer.pick(&[0, 0, 1, 2]) % keys.len();
        let (key, value) = keys.remove(index);
        map.insert(string(key), value);
    }
    Yaml::Hash(map)
}

fn string(text: &str) -> Yaml {
    Yaml::String(text.to_owned())
}

fn map<const N: usize>(pairs: [(&str, Yaml); N]) -> Yaml {
    let pairs = pairs.into_iter().map(|(key, value)| (string(key), value));
    Yaml::Hash(pairs.collect())
}
