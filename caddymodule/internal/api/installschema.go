package api

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/caddy-python-sandbox/caddy-python-sandbox/caddymodule/internal/operation"
)

// What the fields of InstallInput may be, for those that read the OpenAPI document: regular expressions that mean the same in
// ECMA-262, in RE2 and in Python. The policy decides, and says what is wrong in words; these have what it takes in the spelling
// of PEP 440 and PEP 508. It takes some things more: other spellings of a version, and one within package where version leaves
// the choice open, which no schema without a condition could say.
//
// Of what they have, the policy refuses one thing: a name alone that ends as the file of an archive does, such as "a.zip".
// That would need a lookahead, which RE2 and some services for models do not know. The bounds of numbers, the longest version
// included, are below those at which the policy refuses.
const (
	namePattern    = `[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?`
	extraPattern   = `[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?`
	packagePattern = `^` + namePattern + ` *(?:\[ *` + extraPattern + ` *(?:, *` + extraPattern + ` *)*\])?$`

	numberPattern  = `[0-9]{1,14}`
	releasePattern = `(?:[0-9]{1,4}!)?` + numberPattern + `(?:\.` + numberPattern + `){0,5}`
	suffixPattern  = `(?:(?:a|b|rc)` + numberPattern + `)?(?:\.post` + numberPattern + `)?(?:\.dev` + numberPattern + `)?`
	localPattern   = `(?:\+[a-z0-9]{1,12}(?:\.[a-z0-9]{1,11}){0,3})?`
	exactPattern   = `(?:` + releasePattern + suffixPattern + localPattern + `|` + releasePattern + `\.\*)`
	clausePattern  = `(?:(?:[<>]=?) *` + releasePattern + suffixPattern +
		`|~= *` + releasePattern + `\.` + numberPattern + suffixPattern +
		`|[!=]= *` + exactPattern +
		`|=== *[A-Za-z0-9._+!*-]+)`
	versionPattern = `^(?:latest|` + exactPattern + `|` + clausePattern + `(?: *, *` + clausePattern + `)*)?$`
)

// describeInstall puts them into the schema of InstallInput. Called when it is registered, it leaves the words about a field at
// fault to the policy.
func describeInstall(schemas huma.Registry) {
	input := schemas.Schema(reflect.TypeFor[operation.InstallInput](), false, "")
	input.Properties["package"].Pattern = packagePattern
	input.Properties["version"].Pattern = versionPattern
}
