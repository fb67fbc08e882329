//! What the reader may not even ask, beyond what grants and `readonly` refuse.
//!
//! The engine checks the reader's grants on tables, columns and sources itself. Left over are functions that it
//! lets anybody call although they read files or run SQL out of strings (`file()` as a scalar function, `eval()`
//! as a table function). They are looked for in the syntax tree that ClickHouse's own parser makes of the very
//! statement (`EXPLAIN AST`), so neither quoting nor comments hide them. What the tree does not name (the
//! function of `APPLY`) is refused altogether.

/// Functions that reach past the grants, by exact or any other case.
const FUNCTIONS: [&str; 12] = [
    "file",
    "eval",
    "executable",
    "viewExplain",
    "catboostEvaluate",
    "aiClassify",
    "aiGenerate",
    "aiEmbed",
    "aiExtract",
    "aiTranslate",
    "arrowstream",
    "input",
];

/// Functions that may stand in the place of a table.
const TABLE_FUNCTIONS: [&str; 12] = [
    "numbers",
    "numbers_mt",
    "zeros",
    "zeros_mt",
    "generate_series",
    "generateSeries",
    "generateRandom",
    "values",
    "view",
    "merge",
    "null",
    "primes",
];

/// What the text of a tree must begin with, as a check that it is one: the statements that only read.
const ROOTS: [&str; 9] = [
    "SelectWithUnionQuery",
    "SelectIntersectExceptQuery",
    "Explain",
    "Show",
    "Describe",
    "Exists",
    "CheckGrant",
    "SHOW",
    "EXISTS",
];

/// A statement that the reader may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Forbidden {
    /// It names a function that reads files or runs text.
    #[error("{0} is not available to this user")]
    Function(String),
    /// `APPLY`, whose function the tree does not tell.
    #[error("APPLY is not available to this user")]
    Apply,
    /// It has no tree that could be looked at.
    #[error("this statement is not available to this user")]
    Opaque,
}

/// Judges a statement by the text of its tree (format `TSVRaw`).
pub(crate) fn judge(tree: &str) -> Result<(), Forbidden> {
    if !ROOTS.iter().any(|root| tree.starts_with(root)) {
        return Err(Forbidden::Opaque);
    }
    if tree.contains("ColumnsApplyTransformer") {
        return Err(Forbidden::Apply);
    }
    let mut above: Vec<(usize, &str)> = Vec::new();
    for line in tree.lines() {
        let node = line.trim_start_matches(' ');
        let indent = line.len() - node.len();
        while above.last().is_some_and(|(depth, _)| *depth >= indent) {
            above.pop();
        }
        let mut words = node.split(' ');
        let kind = words.next().unwrap_or_default();
        // A function can be handed to another one by its bare name, hence identifiers too.
        if matches!(kind, "Function" | "Identifier") {
            let name = words.next().unwrap_or_default();
            let base = name.trim_matches('`');
            if FUNCTIONS.iter().any(|function| function.eq_ignore_ascii_case(base)) {
                return Err(Forbidden::Function(base.to_owned()));
            }
            let is_table = above.last().is_some_and(|(_, parent)| *parent == "TableExpression");
            if kind == "Function" && is_table && !TABLE_FUNCTIONS.contains(&base) {
                return Err(Forbidden::Function(base.to_owned()));
            }
        }
        above.push((indent, kind));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_plain_select_passes() {
        assert_eq!(
            judge("SelectWithUnionQuery (children 1)\n ExpressionList\n  Function count (children 1)\n"),
            Ok(())
        );
    }

    #[test]
    fn functions_that_reach_out_are_found_wherever_they_stand() {
        let file = Err(Forbidden::Function("file".into()));
        assert_eq!(
            judge("Explain EXPLAIN QUERY TREE (children 1)\n SelectQuery\n  Function file (children 1)"),
            file
        );
        assert_eq!(judge("SelectWithUnionQuery\n Function arrayMap\n  Identifier file"), file);
        assert_eq!(judge("SelectWithUnionQuery\n Function `file` (alias x)"), file);
        let tables = "SelectWithUnionQuery\n TableExpression (children 1)\n  Function ";
        assert_eq!(judge(&format!("{tables}numbers (children 1)")), Ok(()));
        assert_eq!(judge(&format!("{tables}url (children 1)")), Err(Forbidden::Function("url".into())));
    }

    #[test]
    fn what_is_no_tree_is_refused() {
        for text in ["", "{\"explain\":\"SelectWithUnionQuery\"}", "a3f0", "InsertQuery"] {
            assert_eq!(judge(text), Err(Forbidden::Opaque));
        }
        assert_eq!(judge("SelectWithUnionQuery\n ColumnsApplyTransformer"), Err(Forbidden::Apply));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(SelectWithUnionQuery)?( {0,3}(Function|Identifier|x) ?[a-z`]{0,5}\n){0,8}") {
            let _ = judge(&text);
        }
    }
}
