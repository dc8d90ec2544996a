//! `deploy/compose.yaml` cannot be run here. What can be known of it without a container engine is checked: that Docker Compose's own library takes
//! it, that what it names is there, and that the sidecar accepts what it sets.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use yaml_rust2::{Yaml, YamlLoader, yaml::Hash};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(path)
}

fn parse(path: &Path) -> Yaml {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let mut documents =
        YamlLoader::load_from_str(&text).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(documents.len(), 1, "{path:?}");
    documents.remove(0)
}

fn services() -> Hash {
    let compose = parse(&deploy("compose.yaml"));
    compose["services"].as_hash().unwrap().clone()
}

fn service(name: &str) -> Yaml {
    services()[&Yaml::from_str(name)].clone()
}

/// The words of a list, or the keys of a map; of nothing, none.
fn names(yaml: &Yaml) -> Vec<String> {
    let word = |yaml: &Yaml| yaml.as_str().unwrap().to_owned();
    match yaml {
        Yaml::Array(items) => items.iter().map(word).collect(),
        Yaml::Hash(entries) => entries.keys().map(word).collect(),
        _ => Vec::new(),
    }
}

/// `name:1.2` and the like: a tag that says a version.
fn is_pinned(image: &str) -> bool {
    image
        .rsplit_once(':')
        .is_some_and(|(_, tag)| tag.contains(|letter: char| letter.is_ascii_digit()))
}

#[test]
fn docker_composes_own_library_takes_the_file() {
    let loaded = Command::new("go")
        .args(["run", "."])
        .arg(deploy("compose.yaml"))
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compose"))
        // tests/setup has fetched what it is made of.
        .env("GOPROXY", "off")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&loaded.stderr);
    assert!(loaded.status.success(), "{errors}");
}

#[test]
fn compose_pins_its_images_and_mounts_only_what_is_there() {
    let services = services();
    assert!(services.len() >= 6);
    for (name, service) in &services {
        let image = service["image"].as_str().unwrap();
        assert!(is_pinned(image), "{name:?}: {image}");
        for volume in names(&service["volumes"]) {
            let source = volume.split(':').next().unwrap();
            assert!(deploy(source).exists(), "{name:?}: {source}");
            assert!(volume.ends_with(":ro"), "{name:?}: {volume}");
        }
        for port in names(&service["ports"]) {
            assert!(port.starts_with("127.0.0.1:"), "{name:?}: {port}");
        }
        for needed in names(&service["depends_on"]) {
            assert!(services.contains_key(&Yaml::String(needed)), "{name:?}");
        }
    }
}

/// The images that a Dockerfile builds on or copies from, but for its own stages and those it takes from arguments.
fn base_images(dockerfile: &str) -> Vec<String> {
    let words = |line: &str| {
        line.split_whitespace()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let lines: Vec<_> = dockerfile.lines().map(words).collect();
    let named = |line: &&Vec<String>| line.len() > 1 && line[0] == "FROM";
    let copied = lines
        .iter()
        .filter_map(|line| line.get(1)?.strip_prefix("--from="));
    let bases = lines.iter().filter(named).map(|line| line[1].as_str());
    bases
        .chain(copied)
        .filter(|image| !["scratch", "build", "proto"].contains(image) && !image.starts_with("${"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_compose_builds_is_there() {
    let mut built = 0;
    for (name, service) in &services() {
        let build = &service["build"];
        let Some(context) = build.as_str().or_else(|| build["context"].as_str()) else {
            continue;
        };
        built += 1;
        assert!(deploy(context).join("Dockerfile").exists(), "{name:?}");
        // Relative to the compose file.
        let others = build["additional_contexts"].as_hash();
        for other in others.into_iter().flat_map(Hash::values) {
            assert!(deploy(other.as_str().unwrap()).is_dir(), "{other:?}");
        }
    }
    assert_eq!(built, 2, "the sidecar and the example");
}

#[test]
fn the_images_of_the_examples_are_built_on_pinned_ones() {
    for language in ["go", "java", "node", "python"] {
        let file = deploy("examples").join(language).join("Dockerfile");
        let text = fs::read_to_string(&file).unwrap();
        let images = base_images(&text);
        assert!(!images.is_empty(), "{language}");
        for image in images {
            assert!(is_pinned(&image), "{language}: {image}");
        }
        for line in text
            .lines()
            .filter(|line| line.starts_with("COPY ") && !line.contains("--from="))
        {
            let words: Vec<_> = line.split_whitespace().skip(1).collect();
            for source in &words[..words.len() - 1] {
                assert!(file.with_file_name(source).exists(), "{language}: {source}");
            }
        }
    }
}

#[test]
fn the_sidecar_accepts_its_settings_in_compose() {
    let settings = service("outrigger");
    let settings = settings["environment"].as_hash().unwrap();
    let settings = settings
        .iter()
        .map(|(name, value)| (name.as_str().unwrap(), value.as_str().expect("a string")));
    let ours: Vec<_> = settings
        .filter(|(name, _)| name.starts_with("OUTRIGGER_"))
        .collect();
    assert!(
        ours.iter()
            .any(|(name, _)| *name == "OUTRIGGER_KAFKA__BOOTSTRAP_SERVERS")
    );
    let check = Command::new(env!("CARGO_BIN_EXE_outrigger"))
        .args(["config", "check"])
        .env_clear()
        .envs(ours)
        .output()
        .unwrap();
    assert!(
        check.status.success(),
        "{}",
        String::from_utf8_lossy(&check.stderr)
    );
}

#[test]
fn application_and_sidecar_share_one_network_and_prometheus_scrapes_the_admin_port() {
    let app = service("app");
    assert_eq!(app["network_mode"].as_str(), Some("service:outrigger"));
    assert_eq!(
        app["environment"]["OUTRIGGER_ADDRESS"].as_str(),
        Some("127.0.0.1:7420")
    );
    let prometheus = parse(&deploy("prometheus/prometheus.yml"));
    let targets = &prometheus["scrape_configs"][0]["static_configs"][0]["targets"];
    assert_eq!(names(targets), ["outrigger:7421"]);
}

#[test]
fn prometheus_finds_its_rules_and_grafana_a_dashboard_where_compose_mounts_them() {
    let prometheus = parse(&deploy("prometheus/prometheus.yml"));
    let rules = names(&prometheus["rule_files"]);
    assert!(!rules.is_empty());
    for file in rules {
        let groups = parse(&deploy("prometheus").join(&file));
        assert!(groups["groups"].as_vec().is_some(), "{file}");
    }
    let mounted = |service_name: &str, volume: &str| {
        let volumes = names(&service(service_name)["volumes"]);
        assert!(volumes.contains(&volume.to_owned()), "{volumes:?}");
    };
    mounted("prometheus", "./prometheus:/etc/prometheus:ro");
    mounted("grafana", "./grafana:/var/lib/grafana/dashboards:ro");
    // YAML is a superset of JSON.
    let dashboard = parse(&deploy("grafana/outrigger.json"));
    assert_eq!(dashboard["uid"].as_str(), Some("outrigger"));
}

#[test]
fn grafana_is_told_of_the_services_and_the_directory_that_compose_gives_it() {
    let sources = parse(&deploy("grafana/provisioning/datasources/outrigger.yaml"));
    for source in sources["datasources"].as_vec().unwrap() {
        let url = source["url"].as_str().unwrap();
        let host = url.strip_prefix("http://").unwrap().split(':').next();
        assert!(
            services().contains_key(&Yaml::from_str(host.unwrap())),
            "{url}"
        );
    }
    let providers = parse(&deploy("grafana/provisioning/dashboards/outrigger.yaml"));
    let path = providers["providers"][0]["options"]["path"]
        .as_str()
        .unwrap();
    let volumes = names(&service("grafana")["volumes"]);
    assert!(
        volumes.contains(&format!("./grafana:{path}:ro")),
        "{volumes:?}"
    );
}
