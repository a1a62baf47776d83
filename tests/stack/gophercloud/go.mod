// The same small program on both gophercloud that tools of today have inside.
module keystone-broker/tests/stack/gophercloud

go 1.25.0

require (
	github.com/gophercloud/gophercloud v1.14.1
	github.com/gophercloud/gophercloud/v2 v2.13.0
	github.com/gophercloud/utils v0.0.0-20231010081019-80377eca5d56
)

require (
	github.com/hashicorp/go-uuid v1.0.3 // indirect
	github.com/mitchellh/go-homedir v1.1.0 // indirect
	golang.org/x/sys v0.45.0 // indirect
	golang.org/x/text v0.4.0 // indirect
	gopkg.in/yaml.v2 v2.4.0 // indirect
)
