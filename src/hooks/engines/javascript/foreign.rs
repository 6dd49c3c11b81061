//! Finds valid JavaScript syntax for features that hooks do not have: other files, packages, top level `await`.

use oxc_ast::ast::{
    ArrowFunctionExpression, AwaitExpression, BindingIdentifier, CallExpression, Decorator, Expression, ForOfStatement,
    Function, ImportExpression, ImportMeta, Program, Statement,
};
use oxc_ast_visit::{Visit, walk};
use oxc_span::Span;
use oxc_syntax::scope::ScopeFlags;

/// The first such place, and its message.
pub(super) fn foreign_syntax(program: &Program<'_>) -> Option<(Span, String)> {
    let mut finder = Finder::default();
    for statement in &program.body {
        match statement {
            Statement::ImportDeclaration(import) => finder.found(import.span, bundle(&import.source.value)),
            Statement::ExportAllDeclaration(export) => finder.found(export.span, bundle(&export.source.value)),
            Statement::ExportFromDeclaration(export) => finder.found(export.span, bundle(&export.source.value)),
            _ => {}
        }
    }
    finder.visit_program(program);
    if finder.binds_require {
        return finder.first;
    }
    [finder.first, finder.require].into_iter().flatten().min_by_key(|(span, _)| span.start)
}

fn bundle(source: &str) -> String {
    format!("a hook is one file, `{source}` cannot be imported; `snaphook hook build` makes one file of several")
}

#[derive(Default)]
struct Finder {
    first: Option<(Span, String)>,
    require: Option<(Span, String)>,
    binds_require: bool,
    /// Functions around the current place.
    functions: u32,
}

impl Finder {
    fn found(&mut self, span: Span, message: String) {
        if self.first.as_ref().is_none_or(|(first, _)| span.start < first.start) {
            self.first = Some((span, message));
        }
    }

    fn waits(&mut self, span: Span) {
        if self.functions == 0 {
            self.found(span, "`await` is used outside of every function, put it inside the handler".into());
        }
    }
}

impl<'a> Visit<'a> for Finder {
    fn visit_import_expression(&mut self, import: &ImportExpression<'a>) {
        let source = match &import.source {
            Expression::StringLiteral(text) => text.value.as_str(),
            _ => "import()",
        };
        self.found(import.span, bundle(source));
        walk::walk_import_expression(self, import);
    }

    fn visit_import_meta(&mut self, meta: &ImportMeta) {
        self.found(meta.span, "a hook has no `import.meta`".into());
    }

    fn visit_call_expression(&mut self, call: &CallExpression<'a>) {
        if let Expression::Identifier(callee) = &call.callee
            && callee.name == "require"
            && self.require.is_none()
        {
            let source = match call.arguments.first() {
                Some(oxc_ast::ast::Argument::StringLiteral(text)) => text.value.as_str(),
                _ => "require",
            };
            self.require = Some((call.span, bundle(source)));
        }
        walk::walk_call_expression(self, call);
    }

    fn visit_binding_identifier(&mut self, identifier: &BindingIdentifier<'a>) {
        self.binds_require |= identifier.name == "require";
    }

    fn visit_function(&mut self, function: &Function<'a>, flags: ScopeFlags) {
        self.functions += 1;
        walk::walk_function(self, function, flags);
        self.functions -= 1;
    }

    fn visit_arrow_function_expression(&mut self, function: &ArrowFunctionExpression<'a>) {
        self.functions += 1;
        walk::walk_arrow_function_expression(self, function);
        self.functions -= 1;
    }

    fn visit_await_expression(&mut self, wait: &AwaitExpression<'a>) {
        self.waits(wait.span);
        walk::walk_await_expression(self, wait);
    }

    fn visit_for_of_statement(&mut self, statement: &ForOfStatement<'a>) {
        if statement.r#await {
            self.waits(statement.span);
        }
        walk::walk_for_of_statement(self, statement);
    }

    fn visit_decorator(&mut self, decorator: &Decorator<'a>) {
        self.found(decorator.span, "decorators are not supported".into());
    }
}
