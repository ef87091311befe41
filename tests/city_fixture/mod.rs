//! A small city directory for tests that run the program, and the program itself.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A city directory that a test may change, with a data directory beside it.
pub struct City {
    root: TempDir,
}

/// What a run of the program came to.
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

const FILES: [(&str, &str); 9] = [
    ("schools.csv", "school,name,level,departure_opens\nS1,東門國小,elementary,\n"),
    ("readers.csv", "reader,school,name,direction\nR-in,S1,正門,in\n"),
    ("pupils.csv", "pupil,school,class,seat,name\nP1,S1,301,7,王小明\nP2,S1,302,8,林美麗\n"),
    ("cards.csv", "card,pupil,from,until\n04AA,P1,,\n04BB,P2,,\n"),
    (
        "guardians.csv",
        "guardian,name,phone,email,app_token,line_user,language\nG1,王大明,0912345678,,token-1,,\nG2,,0987654321,,,,\n",
    ),
    ("bindings.csv", "guardian,pupil,relation,from,until\nG1,P1,father,,\nG2,P2,mother,,\n"),
    ("subscriptions.csv", "guardian,pupil,channel,passages,from,until\nG1,P1,app,both,,\n"),
    (
        "orders.csv",
        "order,guardian,pupil,plan,state,prepaid,approved_at,cancelled_at\n\
         O1,G1,P1,arrival,approved,68,2025-09-05,\nO2,G1,P1,departure,paid,68,,\nO3,G2,P2,both,ordered,136,,\n",
    ),
    ("days.csv", "date,school,kind,name\n2025-09-29,,off,教師節\n"),
];

impl City {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let city = Self { root };
        std::fs::create_dir(city.dir()).unwrap();
        for (name, text) in FILES {
            city.write(name, text);
        }
        city
    }

    pub fn dir(&self) -> PathBuf {
        self.root.path().join("city")
    }

    pub fn data(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// A path beside the city directory.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.dir().join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir().join(name)).unwrap()
    }

    /// Replaces `from` by `to` in a file; `from` must be there.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "{name} has {from}");
        self.write(name, text.replace(from, to));
    }

    /// Runs `gatebell ARGS` on this city's data directory.
    pub fn gatebell(&self, args: &[&str]) -> Run {
        let output = Command::new(env!("CARGO_BIN_EXE_gatebell"))
            .args(args)
            .arg("--data")
            .arg(self.data())
            .env_remove("GATEBELL_CONFIG")
            .env_remove("GATEBELL_DATA")
            .env("SUDO_USER", "")
            .env("USER", "tester")
            .current_dir(self.root.path())
            .output()
            .unwrap();
        Run {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs `gatebell import` of this city, which must succeed.
    pub fn import(&self, more: &[&str]) -> Run {
        let dir = self.dir();
        let run = self.gatebell(&[&["import", text(&dir)], more].concat());
        assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
        run
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
