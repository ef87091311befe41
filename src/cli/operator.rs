//! Who runs a command: for the record of what was changed by whom.

use std::os::unix::fs::MetadataExt as _;

/// Where the name is looked for; `sudo` keeps whoever called it.
const NAME_VARIABLES: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// The login name of whoever runs this command, or (in a container, say) the number of the user.
pub(super) fn operator() -> String {
    NAME_VARIABLES
        .into_iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(user_number)
}

fn user_number() -> String {
    // A process's own entry belongs to the user it runs as.
    match std::fs::metadata("/proc/self") {
        Ok(own_entry) => format!("uid {}", own_entry.uid()),
        Err(_) => "unknown".to_owned(),
    }
}
