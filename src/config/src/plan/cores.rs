//! The cores that workers run on.

use super::Plan;
use loaded_ipc::PortRange;

/// The configured cores do not match the ones this process may use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoresError {
    /// Some of the cores do not exist or are not available to this process.
    #[error(
        "workers are to run on cores {low}-{high}, but there is no core {} for them; available: {}",
        numbers(missing),
        numbers(available)
    )]
    Missing {
        /// First core of the plan.
        low: u16,
        /// Last core of the plan.
        high: u16,
        /// Which of them are not available.
        missing: Vec<u16>,
        /// What is available.
        available: Vec<u16>,
    },
    /// There is no core at all.
    #[error("no core is available for workers")]
    NoneAvailable,
    /// The queue number of a core would not fit in 16 bits.
    #[error("core {core} would answer queue {queue_base} + {core}, but queue numbers end at 65535; lower --queue-base")]
    NoQueue {
        /// The core.
        core: u16,
        /// The plan's base.
        queue_base: u16,
    },
}

impl Plan {
    /// The cores that get a worker, ascending: those of the plan, or all of `available` (any order).
    ///
    /// # Errors
    /// A core of the plan is not in `available`; nothing is available; a core has no queue number.
    pub fn check_cores(&self, available: &[u16]) -> Result<Vec<u16>, CoresError> {
        let mut available = available.to_vec();
        available.sort_unstable();
        available.dedup();
        let chosen = match self.cores {
            None => available,
            Some((low, high)) => {
                let missing: Vec<u16> = (low..=high).filter(|core| available.binary_search(core).is_err()).collect();
                if !missing.is_empty() {
                    return Err(CoresError::Missing { low, high, missing, available });
                }
                (low..=high).collect()
            }
        };
        let &last = chosen.last().ok_or(CoresError::NoneAvailable)?;
        match self.queue_base.checked_add(last) {
            Some(_) => Ok(chosen),
            None => Err(CoresError::NoQueue { core: last, queue_base: self.queue_base }),
        }
    }
}

/// "0-3, 7": consecutive numbers become a range.
fn numbers(list: &[u16]) -> String {
    let runs = list.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let runs = runs.filter_map(|run| Some(PortRange { low: *run.first()?, high: *run.last()? }.to_string()));
    runs.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn cores_default_to_all_available() {
        assert_eq!(Plan::empty().check_cores(&[3, 0, 1]), Ok(vec![0, 1, 3]));
        assert_eq!(Plan::empty().check_cores(&[]), Err(CoresError::NoneAvailable));
    }

    #[test]
    fn cores_that_do_not_exist_are_named() {
        let plan = Plan { cores: Some((1, 3)), ..Plan::empty() };
        assert_eq!(plan.check_cores(&[0, 1, 2, 3]), Ok(vec![1, 2, 3]));
        let error = plan.check_cores(&[0, 1]).unwrap_err().to_string();
        assert_eq!(error, "workers are to run on cores 1-3, but there is no core 2-3 for them; available: 0-1");
    }

    #[test]
    fn a_core_without_a_queue_number_is_refused() {
        let plan = Plan { queue_base: 65535, ..Plan::empty() };
        assert_eq!(plan.check_cores(&[0]), Ok(vec![0]));
        assert_eq!(plan.check_cores(&[0, 1]), Err(CoresError::NoQueue { core: 1, queue_base: 65535 }));
    }
}
