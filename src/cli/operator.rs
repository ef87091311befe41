//! Who runs a command: for the record of what was changed by whom.

/// Where the name is looked for; `sudo` keeps whoever called it.
const NAME_VARIABLES: [&str; 3] = ["SUDO_USER", "USER", "LOGNAME"];

/// The login name of whoever runs this command, or `unknown`.
pub(super) fn operator() -> String {
    NAME_VARIABLES
        .into_iter()
        .filter_map(|variable| std::env::var(variable).ok())
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| "unknown".to_owned())
}
