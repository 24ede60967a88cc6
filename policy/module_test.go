package policy

import "testing"

func TestProviderAndGuess(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ module, provider, guess string }{
		{"cv2", "opencv-python", "opencv-python"},
		{"PIL", "pillow", "pillow"},
		{"PIL.Image", "pillow", "pillow"},
		{"sklearn.linear_model", "scikit-learn", "scikit-learn"},
		{"google.protobuf.message", "protobuf", "protobuf"},
		{"ruamel.yaml", "ruamel-yaml", "ruamel-yaml"},
		{"pkg_resources", "setuptools", "setuptools"},
		{"telnetlib", "standard-telnetlib", "standard-telnetlib"},
		{"requests", "", "requests"},
		{"requests.adapters", "", "requests"},
		{"flask_cors", "", "flask-cors"},
		{"Cython", "", "cython"},
		{"google.cloud.storage", "", "google-cloud-storage"},
		{"google.cloud.storage.blob", "", "google-cloud-storage"},
		{"azure.storage.blob", "", "azure-storage-blob"},
		{"azure", "", ""},
		{"google", "", ""},
		{"os", "", ""},
		{"os.path", "", ""},
		{"utils", "", ""},
		{"utils.text", "", ""},
		{"my_own_module_of_today", "", ""},
		{"", "", ""},
		{".", "", ""},
		{"..a.", "", ""},
		{"google.", "", ""},
	} {
		if got := Provider(test.module); got != test.provider {
			t.Errorf("Provider(%q) = %q, want %q", test.module, got, test.provider)
		}
		if got := Guess(test.module); got != test.guess {
			t.Errorf("Guess(%q) = %q, want %q", test.module, got, test.guess)
		}
	}
}

func TestIsStandardLibrary(t *testing.T) {
	t.Parallel()
	for module, want := range map[string]bool{
		"os": true, "os.path": true, "xml.etree.ElementTree": true, "asyncio": true, "__future__": true, "telnetlib": true,
		"annotationlib": true, "OS": false, "requests": false, "": false, "osx": false,
	} {
		if got := IsStandardLibrary(module); got != want {
			t.Errorf("IsStandardLibrary(%q) = %v", module, got)
		}
	}
}
