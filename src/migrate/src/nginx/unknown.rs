//! Directives that `loaded` has no counterpart of.

/// Why a directive without a counterpart is left out.
pub(super) fn unknown(word: &str) -> &'static str {
    match word {
        "include" => "included files are not opened; migrate each of them by itself",
        _ => "loaded has no counterpart",
    }
}
