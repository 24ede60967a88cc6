package caddymodule

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestCaddyfileGrammar(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, input, want string }{
		{"nothing", "python_sandbox", `{}`},
		{"an empty block", "python_sandbox {\n}", `{}`},
		{"everything", `python_sandbox {
			python /usr/bin/python3
			preload json re,math , numpy
			python_path /app:/lib /data
			workers {
				idle 8
				max 16
				queue 5
				acquire_timeout 1500ms
				templates 2
				shutdown_grace 3s
			}
			limits {
				execute_timeout 30s 2m
				memory 512MiB
				processes 64
				output 10000
				output_kill 1MiB
				scratch 256MiB
				open_files 256
				request_body 10MB
			}
			isolation best_effort
			packages {
				index https://index.example/simple
				hosts files.example other.example:8443
				block os, subprocess
				allow numpy pandas
				trust reqeusts
				sdist allow
				max_download 1MiB
				max_installed 1GiB
				rate 3 10s
				install_timeout 1m
				data_dir /var/lib/sandbox
			}
			mcp off
			docs off
			hosts sandbox, example.internal
		}`, `{"python":"/usr/bin/python3","preload":["json","re","math","numpy"],"python_path":["/app","/lib","/data"],` +
			`"workers":{"idle":8,"max":16,"queue":5,"acquire_timeout":1500000000,"templates":2,"shutdown_grace":3000000000},` +
			`"limits":{"execute_timeout":30000000000,"execute_timeout_max":120000000000,"memory":536870912,"processes":64,` +
			`"output":10000,"output_kill":1048576,"scratch":268435456,"open_files":256,"request_body":10000000},"isolation":"best_effort",` +
			`"packages":{"index":"https://index.example/simple","hosts":["files.example","other.example:8443"],"block":["os","subprocess"],` +
			`"allow":["numpy","pandas"],"trust":["reqeusts"],"sdist":"allow","max_download":1048576,"max_installed":1073741824,` +
			`"rate":3,"rate_window":10000000000,"install_timeout":60000000000,"data_dir":"/var/lib/sandbox"},"mcp":false,"docs":false,"hosts":["sandbox","example.internal"]}`},
		{"Jupyter", "python_sandbox {\njupyter on\n}", `{"jupyter":{}}`},
		{"Jupyter with a token", "python_sandbox {\njupyter {\ntoken {env.T}\n}\n}", `{"jupyter":{"token":"{env.T}"}}`},
		{"no Jupyter", "python_sandbox {\njupyter off\n}", `{}`},
		{"no packages", "python_sandbox {\npackages off\n}", `{"packages":{"off":true}}`},
		{"an empty list of names", "python_sandbox {\npackages {\nblock\n}\n}", `{}`},
		{"a default timeout alone", "python_sandbox {\nlimits {\nexecute_timeout 5s\n}\n}", `{"limits":{"execute_timeout":5000000000}}`},
		{"a size in bytes", "python_sandbox {\nlimits {\nmemory 67108864\n}\n}", `{"limits":{"memory":67108864}}`},
		{"no directories at all", "python_sandbox {\npython_path\n}", `{}`},
		{"an empty PYTHONPATH", "python_sandbox {\npython_path \"\"\n}", `{}`},
		{"a PYTHONPATH with a space and empty parts", "python_sandbox {\npython_path \"/my app::/b:\"\n}", `{"python_path":["/my app","/b"]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := new(Handler)
			if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.input)); err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(h)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			again := new(Handler)
			if err := caddy.StrictUnmarshalJSON(got, again); err != nil {
				t.Errorf("the JSON is not accepted: %v", err)
			}
		})
	}
}

func TestCaddyfileRefusals(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ input, line, want string }{
		{"python_sandbox /usr/bin/python3 {\n}", "Testfile:1", `"/usr/bin/python3"`},
		{"python_sandbox {\nfoo\n}", "Testfile:2", "unknown word foo"},
		{"python_sandbox {\npython a\npython b\n}", "Testfile:3", "python is set again: it is set on line 2 already"},
		{"python_sandbox {\npython\n}", "Testfile:2", "python takes one value"},
		{"python_sandbox {\npython a b\n}", "Testfile:2", "python takes one value, and 2 are given"},
		{"python_sandbox {\npython a {\nb\n}\n}", "Testfile:3", "python takes no block"},
		{"python_sandbox {\npreload a\npreload b\n}", "Testfile:3", "preload is set again"},
		{"python_sandbox {\nworkers 3\n}", "Testfile:2", `workers takes a block, not "3"`},
		{"python_sandbox {\nworkers {\nidle 1\nsize 3\n}\n}", "Testfile:4", "unknown word workers size"},
		{"python_sandbox {\nworkers {\nidle 1\nidle 3\n}\n}", "Testfile:4", "workers idle is set again: it is set on line 3"},
		{"python_sandbox {\nworkers {\nidle 1\n}\nworkers {\nmax 3\n}\n}", "Testfile:5", "workers is set again"},
		{"python_sandbox {\nworkers {\nidle 0\n}\n}", "Testfile:3", `workers idle "0" is no count`},
		{"python_sandbox {\nworkers {\nmax -1\n}\n}", "Testfile:3", `workers max "-1" is no count`},
		{"python_sandbox {\nworkers {\nqueue many\n}\n}", "Testfile:3", `workers queue "many" is no count`},
		{"python_sandbox {\nworkers {\ntemplates 1.5\n}\n}", "Testfile:3", `workers templates "1.5" is no count`},
		{"python_sandbox {\nworkers {\nacquire_timeout 10\n}\n}", "Testfile:3", `workers acquire_timeout "10" is no duration`},
		{"python_sandbox {\nworkers {\nacquire_timeout 1s 2s\n}\n}", "Testfile:3", "workers acquire_timeout takes 1 to 1 durations, and 2 are given"},
		{"python_sandbox {\nlimits {\nexecute_timeout\n}\n}", "Testfile:3", "limits execute_timeout takes 1 to 2 durations, and 0 are given"},
		{"python_sandbox {\nlimits {\nexecute_timeout 1s -2s\n}\n}", "Testfile:3", `limits execute_timeout "-2s" is no duration`},
		{"python_sandbox {\nlimits {\nmemory lots\n}\n}", "Testfile:3", `limits memory "lots" is no size`},
		{"python_sandbox {\nlimits {\nscratch 0\n}\n}", "Testfile:3", `limits scratch "0" is no size`},
		{"python_sandbox {\nlimits {\nprocesses x\n}\n}", "Testfile:3", `limits processes "x" is no count`},
		{"python_sandbox {\nlimits {\noutput\n}\n}", "Testfile:3", "limits output takes one value"},
		{"python_sandbox {\nlimits {\nopen_files 1 2\n}\n}", "Testfile:3", "limits open_files takes one value"},
		{"python_sandbox {\nlimits {\nrequest_body -1\n}\n}", "Testfile:3", `limits request_body "-1" is no size`},
		{"python_sandbox {\nlimits {\ntimeout 1s\n}\n}", "Testfile:3", "unknown word limits timeout"},
		{"python_sandbox {\nisolation loose\n}", "Testfile:2", `isolation "loose" is unknown: use strict, best_effort, none`},
		{"python_sandbox {\npackages on\n}", "Testfile:2", `packages "on" is unknown: use packages off, or a block`},
		{"python_sandbox {\npackages off\npackages {\n}\n}", "Testfile:3", "packages is set again"},
		{"python_sandbox {\npackages {\nsdist maybe\n}\n}", "Testfile:3", `packages sdist "maybe" is unknown: use deny, allow`},
		{"python_sandbox {\npackages {\nrate 10\n}\n}", "Testfile:3", "packages rate takes 1 to 1 durations, and 0 are given"},
		{"python_sandbox {\npackages {\nrate\n}\n}", "Testfile:3", "packages rate takes a count and a duration"},
		{"python_sandbox {\npackages {\nrate no 1m\n}\n}", "Testfile:3", `packages rate "no" is no count`},
		{"python_sandbox {\npackages {\nmax_download x\n}\n}", "Testfile:3", `packages max_download "x" is no size`},
		{"python_sandbox {\npackages {\ndeny a\n}\n}", "Testfile:3", "unknown word packages deny"},
		{"python_sandbox {\ndocs on\n}", "Testfile:2", `docs "on" is unknown: use docs off`},
		{"python_sandbox {\njupyter maybe\n}", "Testfile:2", `jupyter "maybe" is unknown: use jupyter on, jupyter off, or a block`},
		{"python_sandbox {\njupyter on off\n}", "Testfile:2", `jupyter "off" is unknown`},
		{"python_sandbox {\njupyter on {\ntoken x\n}\n}", "Testfile:3", "jupyter takes no block"},
		{"python_sandbox {\njupyter {\ntoken\n}\n}", "Testfile:3", "jupyter token takes one value"},
		{"python_sandbox {\njupyter {\npassword x\n}\n}", "Testfile:3", "unknown word jupyter password"},
		{"python_sandbox {\ndocs\n}", "Testfile:2", "docs takes one value, and 0 are given"},
		{"python_sandbox {\ndocs off {\nx\n}\n}", "Testfile:3", "docs takes no block"},
		{"python_sandbox {\ndocs off\ndocs off\n}", "Testfile:3", "docs is set again"},
		{"python_sandbox {\nhosts a\nhosts b\n}", "Testfile:3", "hosts is set again"},
		{"python_sandbox {\nhosts a {\nb\n}\n}", "Testfile:3", "hosts takes no block"},
		{"python_sandbox {\nmcp on\n}", "Testfile:2", `mcp "on" is unknown: use mcp off`},
		{"python_sandbox {\nmcp off\nmcp off\n}", "Testfile:3", "mcp is set again"},
	} {
		t.Run(strings.ReplaceAll(c.input, "\n", " "), func(t *testing.T) {
			t.Parallel()
			err := new(Handler).UnmarshalCaddyfile(caddyfile.NewTestDispenser(c.input))
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, want %q in it", err, c.want)
			}
			if !strings.Contains(err.Error(), c.line) {
				t.Errorf("got %q, want the place %s in it", err, c.line)
			}
		})
	}
}
