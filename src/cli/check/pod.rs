//! In a pod: what can be seen from inside of how it is set up. The pod's own manifest cannot be read without the Kubernetes API, which the
//! sidecar has no rights to and no need of.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    time::Duration,
};

use super::{
    limits::mib,
    machine::Machine,
    report::{Category, Report},
};
use crate::config::Config;

const CATEGORY: Category = Category::Kubernetes;

/// The variable that the kubelet gives to every container.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";

/// The variable by which a manifest may say what it gave as terminationGracePeriodSeconds; in seconds, or as a duration.
const GRACE: &str = "OUTRIGGER_GRACE_PERIOD";

/// What is left to the kubelet and to the end of the process after a drain.
const MARGIN: Duration = Duration::from_secs(2);

const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Nothing outside of a pod.
pub(super) fn rows(report: &mut Report, config: &Config, machine: &Machine) {
    if machine.variable(IN_POD).is_none() {
        return;
    }
    grace(report, config, machine);
    socket(report, config, machine);
    user(report, machine);
    root(report, machine);
    token(report, machine);
    memory(report, machine);
}

fn grace(report: &mut Report, config: &Config, machine: &Machine) {
    const CHECK: &str = "grace period";
    let drain = config.drain.deadline;
    let drain_words = humantime::format_duration(drain);
    let Some(text) = machine.variable(GRACE) else {
        return report.skipped(
            CATEGORY,
            CHECK,
            format!("terminationGracePeriodSeconds cannot be read from inside, and ${GRACE} does not tell it; it must be more than drain.deadline={drain_words}"),
        );
    };
    let seconds = text.parse().ok().map(Duration::from_secs);
    let Some(grace) = seconds.or_else(|| humantime::parse_duration(text).ok()) else {
        return report.warning(
            CATEGORY,
            CHECK,
            format!("${GRACE} is neither a number of seconds nor a duration"),
            "Give it the value of the pod's terminationGracePeriodSeconds.",
        );
    };
    let words = format!(
        "the pod has {}, drain.deadline is {drain_words}",
        humantime::format_duration(grace)
    );
    match drain + MARGIN <= grace {
        true => report.ok(CATEGORY, CHECK, words),
        false => report.failed(
            CATEGORY,
            CHECK,
            format!("{words}: the kubelet kills the sidecar before it is done"),
            format!(
                "Raise the pod's terminationGracePeriodSeconds to {} or more, or lower drain.deadline.",
                (drain + MARGIN).as_secs_f64().ceil()
            ),
        ),
    }
}

fn socket(report: &mut Report, config: &Config, machine: &Machine) {
    const CHECK: &str = "socket's directory";
    let Some(directory) = config.listen.unix.as_deref().and_then(Path::parent) else {
        return report.skipped(CATEGORY, CHECK, "listen.unix is off");
    };
    let shown = directory.display();
    if !machine.path(directory).is_dir() {
        return report.failed(
            CATEGORY,
            CHECK,
            format!("{shown} is no directory"),
            format!("Mount a volume at {shown}, the same in the application's container: an emptyDir with medium: Memory."),
        );
    }
    if let Err(error) = write(&machine.path(directory)) {
        return report.failed(
            CATEGORY,
            CHECK,
            format!("no socket can be made in {shown}: {error}"),
            "Mount the volume without readOnly, writable for the sidecar's user (securityContext.fsGroup).",
        );
    }
    match machine.mount(directory) {
        Some((kind, _)) if kind == "tmpfs" => {
            report.ok(CATEGORY, CHECK, format!("{shown}, in memory and writable"));
        }
        Some((kind, _)) => report.warning(
            CATEGORY,
            CHECK,
            format!("{shown} is writable and not in memory, but on {kind}"),
            "Make the volume an emptyDir with medium: Memory, so that a full disk of the node does no harm.",
        ),
        None => report.ok(CATEGORY, CHECK, format!("{shown}, writable")),
    }
}

/// Makes a file and takes it away again: permissions alone do not tell.
fn write(directory: &Path) -> std::io::Result<()> {
    let file: PathBuf = directory.join(format!(".outrigger-check-{}", process::id()));
    fs::File::create_new(&file)?;
    fs::remove_file(&file)
}

fn user(report: &mut Report, machine: &Machine) {
    const CHECK: &str = "user";
    match machine.user() {
        None => report.skipped(CATEGORY, CHECK, "the kernel does not tell"),
        Some(0) => report.warning(
            CATEGORY,
            CHECK,
            "the sidecar runs as root",
            "Set securityContext.runAsNonRoot: true and runAsUser: 65532.",
        ),
        Some(user) => report.ok(CATEGORY, CHECK, format!("user id {user}, not root")),
    }
}

fn root(report: &mut Report, machine: &Machine) {
    const CHECK: &str = "root file system";
    match machine.mount(Path::new("/")) {
        None => report.skipped(CATEGORY, CHECK, "the kernel does not tell"),
        Some((_, false)) => report.ok(CATEGORY, CHECK, "read-only"),
        Some((_, true)) => report.warning(
            CATEGORY,
            CHECK,
            "it can be written to",
            "Set securityContext.readOnlyRootFilesystem: true; the sidecar writes nothing but its socket.",
        ),
    }
}

fn token(report: &mut Report, machine: &Machine) {
    const CHECK: &str = "service account token";
    match machine.exists(TOKEN) {
        false => report.ok(CATEGORY, CHECK, "none is mounted, and none is needed"),
        true => report.warning(
            CATEGORY,
            CHECK,
            "one is mounted, and the sidecar does not need it",
            "Set automountServiceAccountToken: false, unless the application in this pod needs it.",
        ),
    }
}

fn memory(report: &mut Report, machine: &Machine) {
    const CHECK: &str = "memory limit";
    match machine.memory_limit() {
        Some(limit) => report.ok(
            CATEGORY,
            CHECK,
            format!("{}; see limits for what may be needed", mib(limit)),
        ),
        None => report.warning(
            CATEGORY,
            CHECK,
            "there is none",
            "Set resources.limits.memory (see limits for how much), so that one container cannot take the node's memory.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{Row, Status},
        *,
    };
    use crate::config::{Sources, load};

    fn file(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    fn pod(root: &Path, variables: &[(&str, &str)]) -> Vec<Row> {
        let sources = Sources {
            file: None,
            environment: Vec::new(),
            flags: vec![
                ("kafka.bootstrap_servers".into(), "localhost:1".into()),
                ("listen.unix".into(), "/run/outrigger/outrigger.sock".into()),
            ],
        };
        let config = load(&sources).unwrap().config;
        let mut report = Report::default();
        rows(&mut report, &config, &Machine::at(root, variables));
        report.rows()
    }

    fn statuses(rows: &[Row]) -> Vec<(&str, Status)> {
        rows.iter()
            .map(|row| (row.check.as_str(), row.status))
            .collect()
    }

    #[test]
    fn a_pod_as_it_should_be_is_fine() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("run/outrigger")).unwrap();
        let mounts = "overlay / overlay ro 0 0\ntmpfs /run/outrigger tmpfs rw 0 0\n";
        file(root.path(), "proc/self/mounts", mounts);
        file(
            root.path(),
            "proc/self/status",
            "Name:\tx\nUid:\t65532\t65532\t65532\t65532\n",
        );
        file(root.path(), "proc/self/cgroup", "0::/\n");
        file(root.path(), "sys/fs/cgroup/memory.max", "268435456\n");
        let rows = pod(root.path(), &[(IN_POD, "10.0.0.1"), (GRACE, "30")]);
        assert!(rows.iter().all(|row| row.status == Status::Ok), "{rows:#?}");
        assert_eq!(rows.len(), 6);
        assert!(
            fs::read_dir(root.path().join("run/outrigger"))
                .unwrap()
                .next()
                .is_none(),
            "nothing is left behind"
        );
    }

    #[test]
    fn what_is_not_as_it_should_be_is_told_one_by_one() {
        let root = tempfile::tempdir().unwrap();
        file(
            root.path(),
            "proc/self/mounts",
            "overlay / overlay rw 0 0\n",
        );
        file(root.path(), "proc/self/status", "Uid:\t0\t0\t0\t0\n");
        file(root.path(), TOKEN.trim_start_matches('/'), "token");
        let rows = pod(root.path(), &[(IN_POD, "10.0.0.1"), (GRACE, "25s")]);
        assert_eq!(
            statuses(&rows),
            [
                ("grace period", Status::Failed),
                ("socket's directory", Status::Failed),
                ("user", Status::Warning),
                ("root file system", Status::Warning),
                ("service account token", Status::Warning),
                ("memory limit", Status::Warning),
            ]
        );
        fs::create_dir_all(root.path().join("run/outrigger")).unwrap();
        let rows = pod(root.path(), &[(IN_POD, "10.0.0.1")]);
        assert_eq!(
            statuses(&rows)[..2],
            [
                ("grace period", Status::Skipped),
                ("socket's directory", Status::Warning)
            ]
        );
    }

    #[test]
    fn outside_of_a_pod_there_is_nothing_to_say() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(pod(root.path(), &[]), []);
    }
}
