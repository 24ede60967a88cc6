package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestParseRequirement(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ pkg, version, want string }{
		{"requests", "", "requests"},
		{"requests", "latest", "requests"},
		{"requests", " Latest ", "requests"},
		{" requests ", "", "requests"},
		{"Flask_SQLAlchemy", "", "flask-sqlalchemy"},
		{"zope.interface", "", "zope-interface"},
		{"a--b__c..d", "", "a-b-c-d"},
		{"x", "", "x"},
		{"4suite-xml", "", "4suite-xml"},
		{"requests[socks]", "", "requests[socks]"},
		{"requests[ socks , Use_Chardet ]", "", "requests[socks,use-chardet]"},
		{"requests [socks]", "2.31.0", "requests[socks]==2.31.0"},
		{"requests[b,a,B]", "", "requests[a,b]"},
		{"requests", "2.31.0", "requests==2.31.0"},
		{"requests", "v2.31", "requests==2.31"},
		{"requests", "2.0-RC1", "requests==2.0rc1"},
		{"requests", "1!2.0", "requests==1!2.0"},
		{"requests", "1.0+Ubuntu-01", "requests==1.0+ubuntu.1"},
		{"requests", "1.*", "requests==1.*"},
		{"requests", "==1.*", "requests==1.*"},
		{"requests", "!=1.4.*", "requests!=1.4.*"},
		{"requests", " >= 2 , < 3 ", "requests>=2,<3"},
		{"requests", ">=2,>=2.,", ""},
		{"requests", ">=2,>=2,", "requests>=2"},
		{"requests", "~=1.4", "requests~=1.4"},
		{"requests", "===any-Thing", "requests===any-Thing"},
		{"requests==2.31.0", "", "requests==2.31.0"},
		{"requests == 2.31.0", "LATEST", "requests==2.31.0"},
		{"requests[socks]>=2,<3", "", "requests[socks]>=2,<3"},
		{strings.Repeat("a", 128), "", strings.Repeat("a", 128)},
	} {
		got, err := ParseRequirement(test.pkg, test.version)
		if test.want == "" {
			if err == nil {
				t.Errorf("ParseRequirement(%q, %q) = %q, want an error", test.pkg, test.version, got)
			}
			continue
		}
		if err != nil || got.String() != test.want {
			t.Errorf("ParseRequirement(%q, %q) = %q, %v; want %q", test.pkg, test.version, got, err, test.want)
		}
	}
}

func TestParseRequirementRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ pkg, version, field, says string }{
		{"", "", "package", "must not be empty"},
		{"   ", "", "package", "must not be empty"},
		{"-r requirements.txt", "", "package", "not an option"},
		{"--index-url=x", "", "package", "not an option"},
		{"-e", "", "package", "not an option"},
		{"https://example.com/a.whl", "", "package", "not a URL"},
		{"git+https://example.com/a", "", "package", "not a URL"},
		{"git+ssh:x", "", "package", "not a URL"},
		{"requests @ file:///etc/passwd", "", "package", "not a URL"},
		{"requests @ x", "", "package", `without "@"`},
		{"requests@2.31.0", "", "package", `belongs in "version"`},
		{"./requests", "", "package", "not a path"},
		{"../requests", "", "package", "not a path"},
		{".", "", "package", "not a path"},
		{"..", "", "package", "not a path"},
		{"a/b", "", "package", "not a path"},
		{`C:\a`, "", "package", "not a path"},
		{"requests-2.31.0-py3-none-any.whl", "", "package", "not a file"},
		{"requests-2.31.0.tar.gz", "", "package", "not a file"},
		{`requests; python_version < "3"`, "", "package", "environment marker"},
		{"requests\n", "", "package", "control character U+000A"},
		{"requests\r--pre", "", "package", "control character U+000D"},
		{"requests\x00", "", "package", "control character U+0000"},
		{"requests\tx", "", "package", "control character U+0009"},
		{"r\u0435quests", "", "package", "may only look like a letter"},
		{"requests\u200b", "", "package", "U+200B"},
		{"requests\xff", "", "package", "plain ASCII"},
		{"a[]", "", "package", "extra without a name"},
		{"a[ ]", "", "package", "extra without a name"},
		{"a[b,]", "", "package", "extra without a name"},
		{"a[,b]", "", "package", "extra without a name"},
		{"a[b c]", "", "package", "not such a name"},
		{"a[-b]", "", "package", "not such a name"},
		{"a[b", "", "package", "is not one"},
		{"a]b[", "", "package", "is not one"},
		{"[b]", "", "package", "is not one"},
		{"a[b][c]", "", "package", "is not one"},
		{"requests numpy", "", "package", "looks like several"},
		{"requests, numpy", "", "package", "looks like several"},
		{"requests -v", "", "package", "without options"},
		{"requests-", "", "package", "is not one"},
		{"_requests", "", "package", "is not one"},
		{"req$uests", "", "package", "is not one"},
		{"${HOME}", "", "package", "is not one"},
		{strings.Repeat("a", 129), "", "package", "at most 128 characters"},
		{strings.Repeat("a", 5000), "", "package", "at most 1024 characters"},
		{"a[" + strings.Repeat("b,", 150) + "b]", "", "package", "at most 200 characters"},
		{"requests==2.31.0", "2.31.0", "package", "keep one of the two"},
		{"requests==x.y", "", "package", "is neither"},
		{"requests^2", "", "package", `"^" is none`},
		{"requests", "2.31.0\n", "version", "control character"},
		{"requests", "２.31.0", "version", "plain ASCII"},
		{"requests", "abc", "version", "is neither"},
		{"requests", "*", "version", "is neither"},
		{"requests", ",", "version", "is neither"},
		{"requests", ">=", "version", "is neither"},
		{"requests", "2.31.0,<3", "version", "is neither"},
		{"requests", ">=2 <3", "version", "is neither"},
		{"requests", ">=1||<0", "version", "is neither"},
		{"requests", "^2.1", "version", `"^" is none`},
		{"requests", "=2.1", "version", `write "=="`},
		{"requests", "~2.1", "version", "is neither"},
		{"requests", ">=2.*", "version", "is neither"},
		{"requests", "==1.0a1.*", "version", "plain release"},
		{"requests", "~=1", "version", "two numbers or more"},
		{"requests", ">=1+local", "version", "local versions"},
		{"requests", "===a;b", "version", "is neither"},
		{"requests", "2.31.0 --pre", "version", "is neither"},
		{"requests", "2.31.0; x", "version", "is neither"},
		{"requests", "==99999999999999999999", "version", "is neither"},
		{"requests", strings.Repeat("1.", 150) + "1", "version", "at most 200 characters"},
		{"requests", strings.Repeat(",1-1", 50), "version", "is neither"},
	} {
		got, err := ParseRequirement(test.pkg, test.version)
		var invalid *InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("ParseRequirement(%.60q, %.60q) = %q, %v; want an InvalidError", test.pkg, test.version, got, err)
			continue
		}
		if invalid.Field != test.field || !strings.Contains(invalid.Message, test.says) || !strings.HasPrefix(invalid.Message, "must ") {
			t.Errorf("ParseRequirement(%.60q, %.60q): %v; want %s ... %q", test.pkg, test.version, err, test.field, test.says)
		}
		if len(err.Error()) > 350 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("ParseRequirement(%.60q, %.60q): the message is long, or not printable ASCII: %q", test.pkg, test.version, err)
		}
	}
}

// The text of a requirement, as pip gets it, is parsed to the same requirement again.
func TestRequirementIsCanonical(t *testing.T) {
	t.Parallel()
	a, err := ParseRequirement("Zope.Interface[ B , a ]", "1.0-1")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseRequirement(a.String(), "")
	if err != nil || a.Name != b.Name || !slices.Equal(a.Extras, b.Extras) || a.Specifier != b.Specifier {
		t.Errorf("%+v is read back as %+v, %v", a, b, err)
	}
}
