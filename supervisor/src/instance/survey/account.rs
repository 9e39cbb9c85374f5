//! The account that children run as, which somebody may delete while they run.

use loaded_host::{Problem, Severity};
use std::fs;

/// Accounts of this host itself. Others (LDAP) are not asked for: an answer may take long, and the loop waits for nobody.
const ACCOUNTS: &str = "/etc/passwd";

/// Whether the account was there.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// The one that was seen.
    seen: Option<String>,
}

impl Account {
    /// Whether an account that was there is gone.
    pub(super) fn look(&mut self, user: &str) -> Option<Problem> {
        self.judge(user, &fs::read_to_string(ACCOUNTS).ok()?)
    }

    fn judge(&mut self, user: &str, accounts: &str) -> Option<Problem> {
        if accounts.lines().any(|line| line.split(':').next() == Some(user)) {
            self.seen = Some(user.to_owned());
            return None;
        }
        self.seen.as_ref().filter(|seen| *seen == user)?;
        let text = format!("\"{user}\": no such user in {ACCOUNTS} any more: no instance can start or be upgraded so");
        Some(Problem::new("user", Severity::NoStart, text).mended_by(format!("useradd --system {user}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_account_that_was_there_can_go() {
        const ALL: &str = "root:x:0:0::/root:/bin/sh\nloaded:x:99:99::/:/bin/false\n";
        let mut account = Account::default();
        assert_eq!(account.judge("elsewhere", ALL), None, "of a directory service");
        assert_eq!(account.judge("loaded", ALL), None);
        let gone = account.judge("loaded", "loaded2:x:1:1:::\n").map(|problem| problem.to_string());
        assert!(gone.is_some_and(|text| text.ends_with("useradd --system loaded")));
        assert_eq!(account.judge("loaded", ALL), None);
    }
}
