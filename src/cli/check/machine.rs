//! The machine: what the kernel says of this process and its bounds, read from the files under /proc and /sys.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
};

/// Where to read; the root is another one only in tests.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Machine {
    pub(super) fn of_process() -> Self {
        // What is not UTF-8 is none of those that matter here.
        let variables = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self {
            root: PathBuf::from("/"),
            variables,
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.variables
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(super) fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(Path::new(path)).exists()
    }

    fn text(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.path(Path::new(path)))
    }

    /// The user id that counts for files.
    pub(super) fn user(&self) -> Option<u32> {
        let status = self.text("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    }

    /// How many files this process may have open.
    pub(super) fn open_files(&self) -> Option<u64> {
        let limits = self.text("/proc/self/limits").ok()?;
        let line = limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))?;
        match line.split_whitespace().next()? {
            "unlimited" => Some(u64::MAX),
            soft => soft.parse().ok(),
        }
    }

    /// How much memory this process's cgroup may have, by either version; `None` without a bound.
    pub(super) fn memory_limit(&self) -> Option<u64> {
        let groups = self.text("/proc/self/cgroup").ok()?;
        let least = |base: &str, group: &str, file: &str| -> Option<u64> {
            // A bound of any group above holds too.
            Path::new(group)
                .ancestors()
                .filter_map(|group| {
                    let inner = group.strip_prefix("/").unwrap_or(group).display();
                    let text = self.text(&format!("{base}/{inner}/{file}")).ok()?;
                    text.trim().parse::<u64>().ok()
                })
                .min()
        };
        let limit = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
            match controllers {
                "" => least("/sys/fs/cgroup", group, "memory.max"),
                _ if controllers.split(',').any(|name| name == "memory") => {
                    least("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes")
                }
                _ => None,
            }
        })?;
        // Version 1 writes "none" as nearly all there is.
        (limit < 1 << 60).then_some(limit)
    }

    /// The file system that holds `path`: its kind, and whether it can be written to.
    pub(super) fn mount(&self, path: &Path) -> Option<(String, bool)> {
        let mounts = self.text("/proc/self/mounts").ok()?;
        let found = mounts.lines().filter_map(|line| {
            let mut parts = line.split(' ');
            let (_, at, kind, options) =
                (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
            let at = at.replace("\\040", " ");
            let is_writable = !options.split(',').any(|option| option == "ro");
            path.starts_with(&at)
                .then(|| (at.len(), kind.to_owned(), is_writable))
        });
        // Of two at one place, the later lies over the other; `max_by_key` gives the last.
        let (_, kind, is_writable) = found.max_by_key(|(length, ..)| *length)?;
        Some((kind, is_writable))
    }

    #[cfg(test)]
    pub(super) fn at(root: &Path, variables: &[(&str, &str)]) -> Self {
        Self {
            root: root.to_owned(),
            variables: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn the_tightest_bound_on_memory_counts_in_either_version_of_cgroups() {
        let new = tempfile::tempdir().unwrap();
        write(new.path(), "proc/self/cgroup", "0::/pods/one\n");
        write(new.path(), "sys/fs/cgroup/pods/one/memory.max", "max\n");
        write(new.path(), "sys/fs/cgroup/pods/memory.max", "268435456\n");
        let machine = Machine::at(new.path(), &[]);
        assert_eq!(machine.memory_limit(), Some(256 << 20));
        let old = tempfile::tempdir().unwrap();
        write(
            old.path(),
            "proc/self/cgroup",
            "5:cpu,cpuacct:/x\n4:memory:/x\n",
        );
        let file = "sys/fs/cgroup/memory/x/memory.limit_in_bytes";
        write(old.path(), file, "1048576\n");
        assert_eq!(Machine::at(old.path(), &[]).memory_limit(), Some(1 << 20));
        write(old.path(), file, "9223372036854771712\n");
        assert_eq!(Machine::at(old.path(), &[]).memory_limit(), None);
    }

    #[test]
    fn the_innermost_mount_holds_a_path() {
        let root = tempfile::tempdir().unwrap();
        let mounts = "overlay / overlay ro,relatime 0 0\ntmpfs /run/outrigger tmpfs rw 0 0\n";
        write(root.path(), "proc/self/mounts", mounts);
        let machine = Machine::at(root.path(), &[]);
        assert_eq!(
            machine.mount(Path::new("/run/outrigger")),
            Some(("tmpfs".to_owned(), true))
        );
        assert_eq!(
            machine.mount(Path::new("/run/outriggers")),
            Some(("overlay".to_owned(), false))
        );
    }

    #[test]
    fn this_process_has_a_user_and_a_bound_on_open_files() {
        let machine = Machine::of_process();
        assert!(machine.user().is_some());
        assert!(machine.open_files().is_some_and(|files| files > 0));
    }
}
