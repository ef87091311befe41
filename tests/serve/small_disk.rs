//! A disk of a few megabytes that a test can fill: a tmpfs in a mount namespace of its own, which a process holds for as long
//! as the test lives. Only root may make one.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What fills it.
const FILLER: &str = "filler";
/// Written until nothing more fits.
const FILL_CHUNK_BYTES: usize = 4096;

/// Gone, with everything on it, when dropped.
pub(crate) struct SmallDisk {
    holder: Child,
    mounted_at: PathBuf,
}

impl SmallDisk {
    /// One of `mib` at `directory`, seen only by whoever [`enters`](Self::enter); `None` where this user may not mount.
    pub(crate) fn mounted_at(directory: &Path, mib: u32) -> Option<Self> {
        // It ends with its standard input, so also when the test is killed.
        let script = r#"mount -t tmpfs -o "size=$1m,mode=700" tmpfs "$2" && echo mounted && exec cat"#;
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script, "sh", &mib.to_string()])
            .arg(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut()?).read_line(&mut said).ok()?;
        if said.trim() != "mounted" {
            holder.wait().ok();
            return None;
        }
        Some(Self { holder, mounted_at: directory.to_owned() })
    }

    /// `command`, to be run where the disk is seen.
    pub(crate) fn enter(&self, command: &Command) -> Command {
        let mut entering = Command::new("nsenter");
        entering.arg("--target").arg(self.holder.id().to_string()).args(["--mount", "--"]);
        entering.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => entering.env(name, value),
                None => entering.env_remove(name),
            };
        }
        entering
    }

    /// The file `name` on it, as it is seen from outside.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        root.join(self.mounted_at.strip_prefix("/").unwrap()).join(name)
    }

    /// Leaves no byte free.
    pub(crate) fn fill(&self) {
        let mut filler = fs::File::options().create(true).append(true).open(self.file(FILLER)).unwrap();
        while filler.write_all(&[0; FILL_CHUNK_BYTES]).is_ok() {}
    }

    /// Makes room again.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.file(FILLER)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().ok();
    }
}
